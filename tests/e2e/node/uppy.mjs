// What a site's own build makes of Uppy: one script.
import Uppy from "@uppy/core";
import Tus from "@uppy/tus";

Object.assign(globalThis, { Uppy, Tus });
