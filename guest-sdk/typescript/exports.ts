/** The objects that a component exports. They convert between codecs and the types of the WIT package. */

// Only in a component does this module exist.
import logging from "ktables:codec/logging@0.1.0";

import { CodecError, exported, setLogger, type Context, type Encoded, type Header } from "./ktables.ts";

/** Replaces surrogates without their pairs, which the host refuses. */
function clean(text: string): string {
  return text.replace(/\p{Surrogate}/gu, "\ufffd");
}

setLogger((level, message) => logging.log(level, clean(message)));

/**
 * Calls a codec. Throws what the host expects: an error of the WIT package, if the function can return one, or an
 * exception that ends the instance.
 */
function call<T>(run: () => T, toError?: (error: CodecError) => unknown): T {
  try {
    return run();
  } catch (error) {
    if (toError && error instanceof CodecError) throw toError(error);
    // The host shows it as the reason of the fault.
    logging.log("error", clean(error instanceof Error ? `${error.name}: ${error.message}\n${error.stack}` : String(error)));
    throw error;
  }
}

function convert<T>(run: () => T): T {
  return call(run, (error) => ({ tag: error.kind, val: clean(error.message) }));
}

export const valueCodec = {
  decode: (raw: Uint8Array, headers: Header[]) => convert(() => exported.value!.decode(raw, headers)),
  encode: (value: string) =>
    convert(() => {
      const encoded: Encoded = exported.value!.encode(value);
      return { raw: encoded.raw, headers: encoded.headers ?? [] };
    }),
};

export const keyCodec = {
  decode: (raw: Uint8Array) => convert(() => exported.key!.decodeKey(raw)),
  encode: (key: string) => convert(() => exported.key!.encodeKey(key)),
};

export const groupScheme = {
  split: (key: string) => call(() => exported.group!.split(key)),
  join: (group: string, member: string) => convert(() => exported.group!.join(group, member)),
};

export const plugin = {
  describe: () =>
    call(() => {
      const info = exported.plugin!.describe();
      return { name: info.name, version: info.version, wantsHeaders: info.wantsHeaders ?? false };
    }),
  configure: (context: Context) => call(() => exported.plugin!.configure(context), (error) => clean(error.message)),
};
