"""A Django form with the upload widget as one of its fields. One file instead of a project."""

import re
import sys
from pathlib import Path
from urllib.parse import urljoin

from django import forms
from django.conf import settings
from django.core.management import execute_from_command_line
from django.core.validators import RegexValidator
from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.urls import path

import uponce
from uponce.contrib.django import sign_endpoint

settings.configure(
    DEBUG=True,
    SECRET_KEY="only for this example",
    ROOT_URLCONF=__name__,
    MIDDLEWARE=["django.middleware.csrf.CsrfViewMiddleware"],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "DIRS": [Path(__file__).parent / "templates"],
        }
    ],
)

SERVER = urljoin(uponce.sign()["url"], "/")
# A user can change what a browser sends. So accept only media of your own server and folder.
PHOTO = rf"^{re.escape(SERVER)}[\w-]+/image/upload/v\d+/albums/[\w.-]+\Z"


class AlbumForm(forms.Form):
    title = forms.CharField()
    photo = forms.CharField(validators=[RegexValidator(PHOTO, "Upload a photo.")])


def album(request: HttpRequest) -> HttpResponse:
    form = AlbumForm(request.POST or None)
    saved = form.cleaned_data if form.is_valid() else None
    return render(request, "album.html", {"form": form, "saved": saved, "server": SERVER})


sign = sign_endpoint(
    lambda request: True,  # check the login of your users here
    folder="albums",
    allowed_formats="jpg,png,gif,webp",
    max_bytes=20_000_000,
)
urlpatterns = [path("", album), path("sign", sign)]

if __name__ == "__main__":
    execute_from_command_line(sys.argv)
