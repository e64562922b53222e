/** Types of the uponce upload widget, `<uponce-upload>`. */

/** What uponce answers to an upload, in the form of Cloudinary's Upload API. */
export interface Answer {
  public_id: string;
  version: number;
  secure_url: string;
  resource_type: "image" | "video" | "raw";
  type: string;
  bytes: number;
  signature: string;
  format?: string;
  width?: number;
  height?: number;
  duration?: number;
  original_filename?: string;
  [fact: string]: unknown;
}

export type State = "queued" | "signing" | "uploading" | "paused" | "retrying" | "done" | "refused";

/** What the widget wants signed. Every file has a new `nonce`; the others are the element's attributes. */
export interface Params {
  nonce: string;
  public_id?: string;
  folder?: string;
  tags?: string;
}

/** What the sign endpoint answers in place of fields. It refuses the file. */
export interface Unsigned {
  error: { code: string; message?: string; status?: number };
}

/** What the sign endpoint answers. The widget sends exactly these fields. */
export interface Signed {
  /** The upload URL; without it, `<server>/v1_1/<cloud>/auto/upload` of the attributes. */
  url?: string;
  fields: Record<string, string | number>;
}

export interface UploadError {
  /** A code of uponce or of the sign endpoint, or one of the widget: refused, unavailable, unreachable, unreadable, sign_failed, too_many_files, outcome_unknown. */
  code: string;
  /** The text that the user sees. */
  message: string;
  /** Of the HTTP answer. 0 is a broken line. */
  status: number;
}

export interface UploadInfo {
  id: string;
  name: string;
  size: number;
  state: State;
  /** Bytes that were sent. */
  loaded: number;
  answer?: Answer;
  error?: UploadError | null;
}

/** Keys of the texts. The texts may have `{name}`, `{size}`, `{percent}`, `{left}`, `{speed}` and `{max}`. */
export type MessageKey =
  | "choose" | "chooseMany" | "drop" | "dropMany" | "camera"
  | "queued" | "signing" | "uploading" | "pace" | "checking" | "paused" | "retrying" | "busy" | "offline" | "found" | "done"
  | "pause" | "resume" | "retry" | "again" | "remove" | "required" | "wait"
  | "refused" | "sign_failed" | "unavailable" | "unreachable" | "unreadable" | "too_many_files"
  | "file_too_large" | "empty_file" | "format_not_allowed" | "invalid_media" | "media_too_large"
  | "signature_used" | "signature_revoked" | "stale_request" | "outcome_unknown";

export interface Timing {
  /**
   * Milliseconds before the first repeat. Each further pause is twice as long, up to 30 seconds. A tab waits five times as
   * long before it continues an upload of another tab. 1000.
   */
  delay: number;
  /**
   * Repeats without progress before the widget gives up. 8. There are fifty times as many while uponce completes a file
   * that was sent in parts.
   */
  tries: number;
  /** Milliseconds without a byte after which a line counts as broken. 30,000. */
  stall: number;
  /** Bytes of the largest file that the browser keeps for a reload. The user chooses a larger one again. 200,000,000. */
  keep: number;
}

export interface UploadEvents {
  /** Bytes moved, or the state of an upload changed. */
  progress: CustomEvent<Pick<UploadInfo, "id" | "name" | "size" | "loaded" | "state">>;
  uploaded: CustomEvent<{ id: string; name: string; file?: File; answer: Answer }>;
  refused: CustomEvent<{ id: string; name: string; file?: File; error: UploadError }>;
}

export class UponceUpload extends HTMLElement {
  static readonly formAssociated: true;
  /** Texts by key, or by any error code. Missing ones stay English. */
  get messages(): Partial<Record<MessageKey, string>> & Record<string, string>;
  set messages(messages: (Partial<Record<MessageKey, string>> & Record<string, string>) | undefined);
  /** Gets a signature in place of a POST to `sign`. A TypeError means a broken line: the widget tries again. */
  signer?: (params: Params, file: File, signal: AbortSignal) => Promise<Signed | Unsigned>;
  /** More headers for the POST to `sign`, besides those of the attribute `headers` (JSON). */
  headers?: Record<string, string>;
  get timing(): Timing;
  /** Missing values are the defaults. */
  set timing(timing: Partial<Timing> | undefined);
  readonly uploads: UploadInfo[];
  /** The answers of all finished uploads. */
  readonly answers: Answer[];
  /** What the form sends: a list with `multiple`, else one text, which may be empty. */
  readonly value: string | string[];
  readonly form: HTMLFormElement | null;
  readonly validity: ValidityState;
  checkValidity(): boolean;
  reportValidity(): boolean;
  /** Upload files as if the user had chosen them. */
  add(files: Iterable<File>): void;
  /** Open the file dialog, or the camera. Browsers allow it after a click or a key only. */
  pick(camera?: boolean): void;
  pause(): void;
  resume(): void;
  /** Remove all files from the list and from the form. */
  clear(): void;
  addEventListener<K extends keyof UploadEvents>(
    type: K,
    listener: (this: UponceUpload, event: UploadEvents[K]) => unknown,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof UploadEvents>(
    type: K,
    listener: (this: UponceUpload, event: UploadEvents[K]) => unknown,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(
    type: string,
    listener: EventListenerOrEventListenerObject,
    options?: boolean | EventListenerOptions,
  ): void;
}

declare global {
  interface HTMLElementTagNameMap {
    "uponce-upload": UponceUpload;
  }
}
