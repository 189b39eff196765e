"""The bytes of an uploaded image, however they were sent."""

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from dermaray.errors import ImageError
from dermaray.images.decode import MAX_BYTES

# What a multipart form adds around the file: boundaries and headers.
_FORM_OVERHEAD = 64 * 1024

STATUS_OF_REASON = {
    "empty": 400,
    "timed_out": 408,
    "too_large": 413,
    "too_many_pixels": 413,
    "not_an_image": 415,
    "unsupported": 415,
    "truncated": 422,
}
"""The HTTP status that answers an image which cannot be scored."""


async def read_upload(request: Request) -> bytes:
    """Return the image of a request: its body, or the only file of a multipart form.

    Raises:
        ImageError: There is none, or more than the decoder's limit.
    """
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > MAX_BYTES + _FORM_OVERHEAD:
        raise ImageError("too_large", f"{int(stated):,} bytes are more than {MAX_BYTES:,}")
    if request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        if not stated.isdigit():
            # A form is spooled to disk before its size is known.
            raise ImageError("too_large", "a form must state its Content-Length. Or send the image as the body itself")
        return await _from_form(request)
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MAX_BYTES:
            raise ImageError("too_large", f"the body has more than {MAX_BYTES:,} bytes")
    return bytes(data)


async def _from_form(request: Request) -> bytes:
    try:
        async with request.form(max_files=1, max_fields=16) as form:
            for value in form.values():
                if isinstance(value, UploadFile):
                    return await value.read(MAX_BYTES + 1)
    except HTTPException as error:
        raise ImageError("not_an_image", f"a form with one file was expected: {error.detail}") from error
    # By a charset of Python's that decodes nothing.
    except UnicodeError as error:
        raise ImageError("not_an_image", f"a form with one file was expected: {error}") from error
    raise ImageError("empty", "the form holds no file. Send one: curl -F file=@image.jpg")
