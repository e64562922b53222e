"""The guide's part about Prometheus: its files can be read, and ask for metrics and labels that there are."""

import re
from pathlib import Path
from typing import Any

import yaml

from tests.scrape import Scraped
from uponce.adapters.metrics import INTERNAL_ERROR, PrometheusMetrics
from uponce.core.errors import GrantRefused, Unavailable

GUIDE = (Path(__file__).parents[2] / "docs/guide/production.md").read_text()
_, SECTION = GUIDE.split("\n## Metrics\n")
SECTION = SECTION.partition("\n## ")[0]
PROMETHEUS_OWN = {"instance", "job"}


def told() -> Scraped:
    metrics = PrometheusMetrics("1", "server")
    metrics.answered("/readyz", "GET", 503, 0.1)
    return Scraped(metrics.text().decode())


def documents() -> list[Any]:
    return [yaml.safe_load(block) for block in re.findall(r"^```yaml\n(.*?)^```", SECTION, re.MULTILINE | re.DOTALL)]


def test_the_scrape_config_sends_the_token() -> None:
    (job,) = documents()[0]["scrape_configs"]
    assert job["job_name"] == "uponce"
    assert job.get("metrics_path", "/metrics") == "/metrics"
    assert job["authorization"].get("type", "Bearer") == "Bearer"
    assert job["authorization"]["credentials_file"]
    assert len(job["static_configs"][0]["targets"]) == 2


def rules() -> list[dict[str, str]]:
    ((group,),) = [documents()[1]["groups"]]
    found: list[dict[str, str]] = group["rules"]
    return found


def test_the_alerts_ask_for_what_is_told() -> None:
    labels: dict[str, set[str]] = {}
    for sample in told().samples:
        labels.setdefault(sample.name, set()).update(sample.labels)
    names = {"Fails", "UploadsFail", "NotReady", "DoesNotPurge", "DoesNotSweep", "SweepsFail", "OutboxFails"}
    assert {rule["alert"] for rule in rules()} == {f"Uponce{name}" for name in names}
    for rule in rules():
        asked = re.findall(r"\b(uponce_\w+)(?:\{([^}]*)\})?", rule["expr"])
        assert asked or rule["alert"] == "UponceNotReady"
        for name, matchers in asked:
            assert name in labels, name
            assert set(re.findall(r"(\w+)\s*(?:=~|!=|=)", matchers)) <= labels[name]
        assert set(re.findall(r"by \((\w+)\)", rule["expr"])) <= PROMETHEUS_OWN
        # A missed scrape ends what is pending, so days belong into the expression.
        assert re.fullmatch(r"[1-5]?\dm|1h", rule["for"])


def test_something_asks_for_the_readiness_that_an_alert_counts() -> None:
    """nginx asks for none, and Caddy passes over what `for=balancer` does. The alert looks at two minutes."""
    (expr,) = [rule["expr"] for rule in rules() if rule["alert"] == "UponceNotReady"]
    assert 'route="/readyz", status="503"}[2m]' in expr
    assert re.search(r"`\* \* \* \* \* root curl [^`]*http://127\.0\.0\.1:8000/readyz`", SECTION)


def test_the_alert_of_uploads_counts_every_failure_of_the_server_and_no_refusal() -> None:
    """A store that refuses writes fails few requests among many deliveries, and no `/readyz`."""
    (expr,) = [rule["expr"] for rule in rules() if rule["alert"] == "UponceUploadsFail"]
    (outcomes,) = re.findall(r'outcome=~"([^"]*)"', expr)
    failures = {INTERNAL_ERROR, "upstream_refused_account", *(error.code for error in Unavailable.__subclasses__())}
    refusals = {"ok", "upstream_refused", *(error.code for error in GrantRefused.__subclasses__())}
    assert {code for code in failures | refusals if re.fullmatch(outcomes, code)} == failures
    assert failures <= {
        sample.labels["outcome"] for sample in told().samples if sample.name == "uponce_uploads_total"
    }  # from zero, so that the first one is a rise


def test_the_guide_names_every_metric_and_no_other() -> None:
    """With the labels it has."""
    rows = re.findall(r"^\| (`uponce_[^|]*) \|([^|]*)\|", SECTION, re.MULTILINE)
    documented = {
        name: set(re.findall(r"`(\w+)`", labels)) for names, labels in rows for name in re.findall(r"`(\w+)`", names)
    }
    found: dict[str, set[str]] = {}
    for family in told().families:
        name = f"{family.name}_total" if family.type == "counter" else family.name
        found[name] = {label for sample in family.samples for label in sample.labels} - {"le"}
    assert documented == found
