"""What the property tests draw from."""

from hypothesis import strategies as st

from uponce.core.errors import InvalidParameter
from uponce.core.naming import check_public_id
from uponce.core.parameters import UNSIGNED
from uponce.core.values import AssetName, DeliveryType, ResourceType

secrets = st.text(min_size=1, max_size=40)

parameter_names = st.text("abcdefghijklmnopqrstuvwxyz_0123456789", min_size=1, max_size=12).filter(
    lambda name: name not in UNSIGNED
)
parameter_values = st.one_of(st.text(max_size=40), st.text("&=%26|,+ \\a", max_size=20))

# As a caller of an SDK writes them: one text, or a list of texts, for each name.
sdk_parameters = st.dictionaries(
    parameter_names,
    parameter_values | st.lists(parameter_values.filter(bool), max_size=4),
    max_size=6,
)


def _is_valid(public_id: str) -> bool:
    try:
        return check_public_id(public_id) == public_id
    except InvalidParameter:
        return False


_visible = st.characters(exclude_categories=["Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"], exclude_characters='?&#\\%<>+"')
public_ids = st.one_of(
    st.text(_visible, min_size=1, max_size=30),
    st.text("abv1._~-/ é", min_size=1, max_size=20),
).filter(_is_valid)

formats = st.sampled_from(["jpg", "png", "gif", "mp4", "webm", "mp3"])
asset_names = st.builds(
    AssetName,
    cloud=st.text("abc-_09", min_size=1, max_size=10),
    resource_type=st.sampled_from(ResourceType),
    type=st.sampled_from(DeliveryType),
    public_id=public_ids,
)


def as_fields(params: dict[str, str | list[str]]) -> list[tuple[str, str]]:
    """Parameters as an SDK writes them → the form fields it sends."""
    return [
        field
        for name, value in params.items()
        for field in ([(f"{name}[]", item) for item in value] if isinstance(value, list) else [(name, value)])
    ]
