"""What a scrape returns: Prometheus' text, as its own parser reads it."""

from collections.abc import Mapping

from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

TOKEN = "scrape-token"
BEARER = {"authorization": f"Bearer {TOKEN}"}


class Scraped:
    """`scraped.value("uponce_uploads_total", outcome="ok")`; a missing sample is 0."""

    def __init__(self, text: str) -> None:
        self.families: list[Metric] = list(text_string_to_metric_families(text))
        self.samples = [sample for family in self.families for sample in family.samples]

    def value(self, name: str, **labels: str) -> float:
        """The sum over all that have these labels."""
        return sum(
            sample.value for sample in self.samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def outcomes(self) -> Mapping[str, float]:
        return {
            sample.labels["outcome"]: sample.value
            for sample in self.samples
            if sample.name == "uponce_uploads_total" and sample.value
        }
