/**
 * The SDK for ktables codecs in TypeScript and JavaScript.
 *
 * A codec is an instance of a class that extends {@link ValueCodec}, {@link KeyCodec} or {@link GroupScheme}, and
 * {@link exportCodecs} makes it part of the component:
 *
 * ```ts
 * import { Invalid, Malformed, ValueCodec, exportCodecs, type Encoded } from "./ktables/ktables.ts";
 *
 * class Counter extends ValueCodec {
 *   decode(raw: Uint8Array): string {
 *     if (raw.length !== 1) throw new Malformed(`a counter has one byte, not ${raw.length}`);
 *     return String(raw[0]);
 *   }
 *   encode(value: string): Encoded {
 *     const number: unknown = JSON.parse(value);
 *     if (typeof number !== "number" || !Number.isInteger(number) || number < 0 || number > 255) {
 *       throw new Invalid("expected a whole number below 256");
 *     }
 *     return { raw: Uint8Array.of(number) };
 *   }
 * }
 *
 * exportCodecs(new Counter());
 * ```
 *
 * Build a component of it (it needs the packages componentize-qjs and esbuild, and `ktables` on your PATH):
 *
 * ```sh
 * node ktables/build.mjs counter.ts -o counter.wasm
 * ```
 *
 * In a component, the engine is QuickJS: it has the language (ES2023, with BigInt), but neither the functions of browsers
 * nor those of Node.js. For UTF-8, use {@link decodeUtf8} and {@link encodeUtf8}. `JSON.parse` rounds numbers above 2^53:
 * use `BigInt` for numbers of 64 bits. Packages of npm that need neither Node.js nor a browser become part of the component.
 * The same file also runs in Node.js 22.18 or later, with `node --test`, for example.
 *
 * A codec must be pure: its answer depends on the input and the configuration only, not on earlier calls. The host runs
 * several instances at once, and may replace any of them at any time. The component contains the module as it is after
 * its import: what the module does at its top level happens once, when the component is built.
 *
 * A {@link CodecError} rejects a record, or refuses a write. Any other exception is a fault: the record is rejected, and
 * the exception's text and stack are its reason. `split` and `describe` cannot fail: any exception there is a fault.
 */

/** The kinds of errors, by which the host counts rejected records. */
export type ErrorKind = "malformed" | "invalid" | "unsupported" | "other";

/**
 * A codec could not convert an item. The host rejects the record. An instance of this class itself is of the kind
 * "other". Users see the text: say what was expected, what was found, and where in the input.
 */
export class CodecError extends Error {
  readonly kind: ErrorKind = "other";
}

/** The bytes are not in the format of the codec. */
export class Malformed extends CodecError {
  override readonly kind = "malformed";
}

/** The format is correct, but the content breaks a rule of the schema. */
export class Invalid extends CodecError {
  override readonly kind = "invalid";
}

/** The codec does not do this: it only decodes, for example, or the bytes have a later version of the format. */
export class Unsupported extends CodecError {
  override readonly kind = "unsupported";
}

/** A header of a record. As in Kafka, null and empty values differ. */
export interface Header {
  name: string;
  value: Uint8Array | null;
}

/** An encoded value: the bytes of the record, and headers to write with it. */
export interface Encoded {
  raw: Uint8Array;
  headers?: Header[];
}

/** Converts between the bytes of record values and JSON text. */
export abstract class ValueCodec {
  /**
   * Returns the JSON text of a value. `headers` is empty unless a {@link Plugin} wants them. A record with a null value
   * does not reach the codec.
   */
  abstract decode(raw: Uint8Array, headers: Header[]): string;

  /** Returns the bytes of a value. A codec that only decodes leaves it out. */
  encode(_value: string): Encoded {
    throw new Unsupported("this codec only decodes");
  }
}

/**
 * Converts between the bytes of record keys and the text of keys in a table.
 *
 * Kafka compacts by the bytes, and a table looks keys up by the text. So both must identify the same key: encoding a
 * decoded key must return the same bytes. The host checks this, and rejects other records.
 */
export abstract class KeyCodec {
  /** Returns the text of a key. */
  abstract decodeKey(raw: Uint8Array): string;

  /** Returns the bytes of a key. */
  abstract encodeKey(key: string): Uint8Array;
}

/** A key, split into group and member. */
export interface GroupKey {
  group: string;
  member: string;
}

/**
 * Splits keys into group and member. Joining the parts of a key must return the key. Otherwise the host treats the key
 * as foreign: it counts the record, and leaves it out of the grouped table.
 */
export abstract class GroupScheme {
  /** Returns the group and the member of a key, or null if the key does not belong to the grouped table. */
  abstract split(key: string): GroupKey | null;

  /** Returns the key of a member of a group. */
  abstract join(group: string, member: string): string;
}

/** The description of a component. */
export interface Info {
  name: string;
  version: string;
  /** Whether `ValueCodec.decode` wants the headers of records. */
  wantsHeaders?: boolean;
}

/** What an instance is used for, and its configuration. */
export interface Context {
  topic: string;
  role: "value" | "key" | "group";
  /** The configuration that the user gives, as JSON text; "{}" if there is none. */
  config: string;
}

/** Describes the component, and receives its configuration. */
export abstract class Plugin {
  /** Describes the component. */
  abstract describe(): Info;

  /**
   * Configures the instance before its first record. If it throws a {@link CodecError}, the table does not start, and
   * the user sees the text.
   */
  configure(_context: Context): void {}
}

/** The codecs of the component, set by {@link exportCodecs}. */
export const exported: { value?: ValueCodec; key?: KeyCodec; group?: GroupScheme; plugin?: Plugin } = {};

/** Makes these codecs the ones of the component: at most one of each kind, and a {@link Plugin}. */
export function exportCodecs(...codecs: (ValueCodec | KeyCodec | GroupScheme | Plugin)[]): void {
  for (const codec of codecs) {
    if (codec instanceof ValueCodec) exported.value = codec;
    else if (codec instanceof KeyCodec) exported.key = codec;
    else if (codec instanceof GroupScheme) exported.group = codec;
    else if (codec instanceof Plugin) exported.plugin = codec;
    else throw new TypeError("expected instances of ValueCodec, KeyCodec, GroupScheme or Plugin");
  }
}

/** The severity of a log message. */
export type Level = "trace" | "debug" | "info" | "warn" | "error";

/** Where log messages go. In a component, {@link setLogger} replaces it by the log of the host. */
let logger: (level: Level, message: string) => void = (_, message) =>
  (globalThis as { console?: { error(message: string): void } }).console?.error(message);

/** Writes a message to the log of the host. In tests that run in Node.js, writes it to standard error. */
export function log(level: Level, message: string): void {
  logger(level, message);
}

/** Sets where log messages go. Used by the component. */
export function setLogger(other: typeof logger): void {
  logger = other;
}

/** Returns the text of UTF-8 bytes, or throws {@link Malformed}. */
export function decodeUtf8(bytes: Uint8Array): string {
  let escaped = "";
  for (const byte of bytes) {
    escaped += byte < 0x80 && byte !== 0x25 ? String.fromCharCode(byte) : `%${byte.toString(16).padStart(2, "0")}`;
  }
  try {
    return decodeURIComponent(escaped);
  } catch {
    throw new Malformed("not UTF-8");
  }
}

/** Returns the UTF-8 bytes of a text, or throws {@link Invalid} if it has a surrogate without its pair. */
export function encodeUtf8(text: string): Uint8Array {
  let escaped: string;
  try {
    escaped = encodeURIComponent(text);
  } catch {
    throw new Invalid("a surrogate without its pair");
  }
  const bytes: number[] = [];
  for (let at = 0; at < escaped.length; at++) {
    if (escaped[at] === "%") {
      bytes.push(parseInt(escaped.slice(at + 1, at + 3), 16));
      at += 2;
    } else {
      bytes.push(escaped.charCodeAt(at));
    }
  }
  return Uint8Array.from(bytes);
}
