"""The calls of Cloudinary's Upload and Admin API that uponce lacks. uponce refuses each by name."""

import re
from enum import StrEnum
from functools import cache
from typing import TypeVar

from uponce.core.errors import MalformedRequest, NotFound, UnsupportedCall, UponceError, shown
from uponce.core.parameters import Call
from uponce.web.errors import refusal
from uponce.web.request import Request
from uponce.web.response import Response

E = TypeVar("E", bound=StrEnum)

# Method, path below /v1_1/<cloud>/, and the name that SDKs give the call. `<rt>` is a resource type, `*` one segment,
# `**` one segment or more. The first row that fits counts.
_TABLE = """
POST    <rt>/explicit                              explicit
POST    <rt>/rename                                rename
POST    <rt>/tags                                  tags
POST    <rt>/context                               context
POST    <rt>/metadata                              update_metadata
POST    <rt>/explode                               explode
ANY     <rt>/multi                                 multi
ANY     <rt>/sprite                                generate_sprite
POST    <rt>/text                                  text
ANY     <rt>/generate_archive                      generate_archive
POST    <rt>/create_slideshow                      create_slideshow
POST    <rt>/create_video                          create_video
POST    <rt>/create_collage                        create_collage
ANY     <rt>/download                              private_download_url
ANY     <rt>/download_tag.zip                      zip_download_url
ANY     download_backup                            download_backedup_asset
ANY     <rt>/delete_by_token                       delete_by_token
ANY     delete_by_token                            delete_by_token
POST    asset/destroy                              destroy_by_asset_id
GET     usage                                      usage
GET     usage/*                                    usage
GET     resources                                  resource_types
DELETE  resources                                  delete_resources_by_asset_ids
GET     resources/by_asset_folder                  resources_by_asset_folder
GET     resources/by_asset_ids                     resources_by_asset_ids
ANY     resources/search                           search
ANY     resources/visual_search                    visual_search
POST    resources/related_assets/**                add_related_assets
DELETE  resources/related_assets/**                delete_related_assets
POST    resources/restore                          restore_by_asset_ids
DELETE  resources/backup/*                         delete_backed_up_assets
GET     resources/<rt>/tags/*                      resources_by_tag
DELETE  resources/<rt>/tags/*                      delete_resources_by_tag
GET     resources/<rt>/moderations/*/*             resources_by_moderation
POST    resources/<rt>/publish_resources           publish
POST    resources/<rt>/*/restore                   restore
POST    resources/<rt>/*/update_access_mode        update_access_mode
GET     resources/<rt>                             resources
GET     resources/<rt>/*                           resources
DELETE  resources/<rt>/*                           delete_resources
POST    resources/<rt>/*/**                        update
GET     resources/*                                resource_by_asset_id
PUT     resources/*                                update_by_asset_id
ANY     resources/**                               resources
DELETE  derived_resources                          delete_derived_resources
GET     tags/<rt>                                  list_tags
ANY     folders/search                             search_folders
GET     folders                                    root_folders
GET     folders/**                                 subfolders
POST    folders/**                                 create_folder
PUT     folders/**                                 rename_folder
DELETE  folders/**                                 delete_folder
POST    upload_presets                             create_upload_preset
PUT     upload_presets/*                           update_upload_preset
DELETE  upload_presets/*                           delete_upload_preset
GET     upload_mappings                            upload_mappings
POST    upload_mappings                            create_upload_mapping
PUT     upload_mappings                            update_upload_mapping
DELETE  upload_mappings                            delete_upload_mapping
GET     transformations                            transformations
POST    transformations                            create_transformation
PUT     transformations                            update_transformation
DELETE  transformations                            delete_transformation
ANY     transformations/**                         transformation
GET     streaming_profiles                         list_streaming_profiles
POST    streaming_profiles                         create_streaming_profile
GET     streaming_profiles/*                       get_streaming_profile
PUT     streaming_profiles/*                       update_streaming_profile
DELETE  streaming_profiles/*                       delete_streaming_profile
ANY     triggers                                   triggers
ANY     triggers/**                                triggers
GET     metadata_fields                            list_metadata_fields
POST    metadata_fields                            add_metadata_field
PUT     metadata_fields/order                      reorder_metadata_fields
GET     metadata_fields/*                          metadata_field_by_field_id
PUT     metadata_fields/*                          update_metadata_field
DELETE  metadata_fields/*                          delete_metadata_field
PUT     metadata_fields/*/datasource               update_metadata_field_datasource
DELETE  metadata_fields/*/datasource               delete_datasource_entries
POST    metadata_fields/*/datasource_restore       restore_metadata_field_datasource
POST    metadata_fields/*/datasource/order         reorder_metadata_field_datasource
GET     metadata_rules                             list_metadata_rules
POST    metadata_rules                             add_metadata_rule
PUT     metadata_rules/*                           update_metadata_rule
DELETE  metadata_rules/*                           delete_metadata_rule
ANY     video/analytics/**                         video_analytics
ANY     analysis/**                                analyze
ANY     notifications/**                           notifications
ANY     accounts/**                                provisioning
"""
_HERE = frozenset(str(call) for call in Call)
_PARTS = {"<rt>": "(?:image|video|raw|auto|all)", "*": "[^/]+", "**": ".+"}
_BELOW_CLOUD = re.compile(r"/v[12](?:_[0-9])?/[^/]+/(.+?)/?")
_ALIAS = re.compile(r"(image|video|raw|auto)/(private|authenticated)")
_DELIVERY = re.compile(r"/[^/]+/(images|videos|files|private_images|authenticated_images|iu|search)/.+")


def missing(method: str, path: str) -> UponceError:
    """Return UnsupportedCall with the name of a call that only Cloudinary has, else NotFound."""
    below = _BELOW_CLOUD.fullmatch(path)
    if below is None:
        return _no_such_address(path)
    alias = _ALIAS.fullmatch(below[1])
    if alias is not None:
        return UnsupportedCall(
            f"Uploads to /{alias[0]} are not supported by uponce yet. Sign type={alias[2]} and upload to "
            f"/v1_1/<cloud>/{alias[1]}/upload."
        )
    for name, of_method, pattern in _rows():
        if of_method in ("ANY", method) and pattern.fullmatch(below[1]):
            return UnsupportedCall(
                f"{name} is not supported by uponce yet. Of Cloudinary's Upload and Admin API, uponce has "
                f"{', '.join(Call)}, ping, config, resource, resources_by_context, upload_presets and upload_preset."
            )
    return NotFound(
        "There is no such call. Upload to /v1_1/<cloud>/<image|video|raw|auto>/upload, or by tus to /tus/<cloud>/."
    )


def known(request: Request, part: str, values: type[E]) -> E:
    """Return the value of a part of the path. Raise the refusal of a call that uponce lacks, or of a wrong value."""
    try:
        return values(request.params[part])
    except ValueError:
        call = missing(request.method, request.path)
        if isinstance(call, UnsupportedCall):
            raise call from None
        *others, last = values
        raise NotFound(
            f"The {part} in the address must be {', '.join(others)} or {last}, not '{shown(request.params[part])}'."
        ) from None


def refuse_method(request: Request, purpose: str, methods: tuple[str, ...]) -> Response:
    """Return the refusal of a wrong method. It names Cloudinary's call, or else the purpose of the address."""
    call = missing(request.method, request.path)
    if isinstance(call, UnsupportedCall):
        return refusal(request, call)
    error = MalformedRequest(f"{purpose} Use {' or '.join(methods)}, not {request.method[:20]}.")
    return refusal(request, error, status=405, headers=((b"allow", ", ".join(methods).encode()),))


def _no_such_address(path: str) -> UponceError:
    delivery = _DELIVERY.fullmatch(path)
    if delivery is not None:
        return UnsupportedCall(
            f"Delivery URLs with /{delivery[1]}/ are not supported by uponce yet. Use "
            "/<cloud>/<image|video|raw>/<type>/v<version>/<public_id>.<format>."
        )
    return NotFound(
        "There is nothing at this address. Upload to /v1_1/<cloud>/<image|video|raw|auto>/upload, or by tus to "
        "/tus/<cloud>/."
    )


@cache
def _rows() -> tuple[tuple[str, str, re.Pattern[str]], ...]:
    rows = [line.split() for line in _TABLE.strip().splitlines()]
    return tuple((name, method, re.compile(_pattern(path))) for method, path, name in rows if name not in _HERE)


def _pattern(path: str) -> str:
    return "/".join(_PARTS.get(segment, re.escape(segment)) for segment in path.split("/"))
