"""What ``sglang doctor`` asks about encoding."""

from sglang_core import Check, CheckResult

from .libraries import PILLOW, PYAV


def check_pictures() -> CheckResult:
    """Say whether pictures can be written."""
    found = PILLOW.probe()
    if not found.is_available:
        return CheckResult(status="problem", message=found.reason, remedy=found.remedy)
    from PIL import features  # only doctor pays for it

    codecs = {"zlib": "PNG", "jpg": "JPEG", "webp": "WebP"}
    missing = [title for codec, title in codecs.items() if not features.check(codec)]
    if missing:
        message = f"{found.reason} was built without {', '.join(missing)}"
        return CheckResult(status="problem", message=message, remedy="pip install --force-reinstall pillow")
    return CheckResult(status="ok", message=f"{found.reason} writes PNG, JPEG, WebP and GIF")


def check_clips() -> CheckResult:
    """Say whether video can be written."""
    found = PYAV.probe()
    if not found.is_available:
        message = f"{found.reason}: no MP4 files"
        return CheckResult(status="warning", message=message, remedy=found.remedy)
    import av  # only doctor pays for it

    missing = [codec for codec in ("libx264", "aac") if codec not in av.codecs_available]
    if missing:
        message = f"{found.reason} was built without {' and '.join(missing)}: no MP4 files"
        remedy = "pip install --force-reinstall --only-binary av av"
        return CheckResult(status="warning", message=message, remedy=remedy)
    return CheckResult(status="ok", message=f"{found.reason} writes MP4 with H.264 (libx264) and AAC")


CHECKS = [Check(name="pictures", run=check_pictures), Check(name="clips", run=check_clips)]
