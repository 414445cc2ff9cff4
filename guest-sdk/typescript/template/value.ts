/** A codec of values that are a big-endian number of 32 bits, as a JSON number. */
import { Invalid, Malformed, ValueCodec, exportCodecs, type Encoded } from "./ktables/ktables.ts";

class Counter extends ValueCodec {
  override decode(raw: Uint8Array): string {
    if (raw.length !== 4) throw new Malformed(`expected 4 bytes, found ${raw.length}`);
    return String(new DataView(raw.buffer, raw.byteOffset).getUint32(0));
  }

  override encode(value: string): Encoded {
    const number: unknown = JSON.parse(value);
    if (!Number.isInteger(number) || (number as number) < 0 || (number as number) >= 2 ** 32) {
      throw new Invalid("expected a whole number below 2^32");
    }
    const raw = new Uint8Array(4);
    new DataView(raw.buffer).setUint32(0, number as number);
    return { raw };
  }
}

exportCodecs(new Counter());
