/** A codec of keys that are a big-endian number of 32 bits, as a decimal number. */
import { Invalid, KeyCodec, Malformed, exportCodecs } from "./ktables/ktables.ts";

class Id extends KeyCodec {
  override decodeKey(raw: Uint8Array): string {
    if (raw.length !== 4) throw new Malformed(`expected 4 bytes, found ${raw.length}`);
    return String(new DataView(raw.buffer, raw.byteOffset).getUint32(0));
  }

  override encodeKey(key: string): Uint8Array {
    // Each key has one text only: no leading zeros.
    if (!/^(0|[1-9][0-9]{0,9})$/.test(key) || Number(key) >= 2 ** 32) {
      throw new Invalid("expected a whole number below 2^32");
    }
    const raw = new Uint8Array(4);
    new DataView(raw.buffer).setUint32(0, Number(key));
    return raw;
  }
}

exportCodecs(new Id());
