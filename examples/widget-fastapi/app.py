"""A page with the upload widget, and the endpoint that signs for the page."""

from urllib.parse import urljoin

from fastapi import FastAPI
from fastapi.responses import FileResponse, RedirectResponse

import uponce
from uponce.contrib.starlette import sign_endpoint

app = FastAPI()

sign = sign_endpoint(
    lambda request: True,  # check the login of your users here
    folder="photos",
    allowed_formats="jpg,png,gif,webp,mp4",
    max_bytes=20_000_000,
)
app.post("/sign")(sign)


@app.get("/")
def page() -> FileResponse:
    return FileResponse("index.html")


@app.get("/widget.js")
def widget() -> RedirectResponse:
    """Lead to the widget of the uponce server that CLOUDINARY_URL names."""
    return RedirectResponse(urljoin(uponce.sign()["url"], "/widget.js"))
