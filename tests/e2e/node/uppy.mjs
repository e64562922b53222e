// What a site's own build makes of Uppy: one script.
import Uppy from "@uppy/core";
import Tus from "@uppy/tus";
import XHRUpload from "@uppy/xhr-upload";

Object.assign(globalThis, { Uppy, Tus, XHRUpload });
