"""The storage keeps the contract of its seam, in every shape it can be asked for."""

import pytest

from sglang_core.testing import check_storage_uploader


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"s3_prefix": "/a/b/", "s3_key_template": "{date}/{stem}-{id}.{extension}"},
        {"s3_url_kind": "presigned", "s3_session_token": "token"},
        {"s3_encryption": "s3"},
        {"s3_encryption": "kms", "s3_kms_key_id": "a-key"},
    ],
    ids=lambda changes: "-".join(changes) or "plain",
)
def test_contract(changes, s3_manager, s3_settings, admin, tmp_path):
    check_storage_uploader(s3_manager.storage_uploaders.get("s3"), s3_settings(**changes), tmp_path)

    assert list(admin.list_objects("pictures", recursive=True)) == []
    assert admin._list_multipart_uploads("pictures").uploads == []
