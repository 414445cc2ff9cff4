/**
 * A codec for a compact binary record of a service instance, which becomes JSON, and for 16-byte keys, which become UUID
 * text. `examples/service-record` is the same codec in Rust; it describes the format.
 */
import {
  Invalid,
  KeyCodec,
  Malformed,
  Unsupported,
  ValueCodec,
  decodeUtf8,
  encodeUtf8,
  exportCodecs,
  type Encoded,
} from "../../guest-sdk/typescript/ktables.ts";

const VERSION = 1;
const HEALTHY = 1;
const DRAINING = 2;

/** The content of a record. 64 bits do not fit into a `number`. */
interface Service {
  host: string;
  port: bigint;
  weight: bigint;
  healthy: boolean;
  draining: boolean;
  started: bigint;
  tags: string[];
}

class ServiceCodec extends ValueCodec {
  override decode(raw: Uint8Array): string {
    const fields = new Fields(raw);
    const version = fields.number("version", 1);
    if (version !== VERSION) throw new Unsupported(`unsupported version ${version}, expected ${VERSION}`);
    const flags = fields.number("flags", 1);
    if (flags > (HEALTHY | DRAINING)) throw new Invalid(`unknown flags 0x${hex(flags)}, expected only 1 and 2`);
    const [port, weight, started] = [fields.number("port", 2), fields.number("weight", 4), fields.bigint("start", 8)];
    const host = fields.text("host");
    const tags = Array.from({ length: fields.number("number of tags", 1) }, () => fields.text("tag"));
    if (fields.at < raw.length) throw new Malformed(`${raw.length - fields.at} bytes after the last tag`);
    const before = JSON.stringify({ host, port, weight, healthy: !!(flags & HEALTHY), draining: !!(flags & DRAINING) });
    return `${before.slice(0, -1)},"started":${started},"tags":${JSON.stringify(tags)}}`;
  }

  override encode(value: string): Encoded {
    const service = parseService(value);
    const raw = [VERSION, (service.healthy ? HEALTHY : 0) | (service.draining ? DRAINING : 0)];
    pushNumber(raw, service.port, 2);
    pushNumber(raw, service.weight, 4);
    pushNumber(raw, service.started, 8);
    pushText(raw, "host", service.host);
    pushLength(raw, "tags", service.tags.length);
    for (const tag of service.tags) pushText(raw, "tag", tag);
    return { raw: Uint8Array.from(raw) };
  }
}

class UuidKey extends KeyCodec {
  override decodeKey(raw: Uint8Array): string {
    if (raw.length !== 16) throw new Malformed(`expected a key of 16 bytes, found ${raw.length}`);
    return Array.from(raw, hex).join("").replace(/^(.{8})(.{4})(.{4})(.{4})/, "$1-$2-$3-$4-");
  }

  override encodeKey(key: string): Uint8Array {
    if (!/^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(key)) {
      throw new Invalid(`expected a UUID in lower case, with hyphens; found ${JSON.stringify(key)}`);
    }
    return Uint8Array.from(key.replaceAll("-", "").match(/../g)!, (digits) => parseInt(digits, 16));
  }
}

/** Reads the fields of a record, one after the other. */
class Fields {
  readonly raw: Uint8Array;
  at = 0;

  constructor(raw: Uint8Array) {
    this.raw = raw;
  }

  take(name: string, length: number): Uint8Array {
    const field = this.raw.subarray(this.at, this.at + length);
    if (field.length < length) {
      throw new Malformed(`${name} at byte ${this.at}: expected ${length} bytes, found ${field.length}`);
    }
    this.at += length;
    return field;
  }

  bigint(name: string, length: number): bigint {
    return this.take(name, length).reduce((number, byte) => (number << 8n) | BigInt(byte), 0n);
  }

  number(name: string, length: number): number {
    return this.take(name, length).reduce((number, byte) => number * 256 + byte, 0);
  }

  text(name: string): string {
    const length = this.number(name, 1);
    const at = this.at;
    try {
      return decodeUtf8(this.take(name, length));
    } catch (error) {
      if (this.at === at) throw error;
      throw new Malformed(`${name} at byte ${at}: not UTF-8`);
    }
  }
}

function hex(byte: number): string {
  return byte.toString(16).padStart(2, "0");
}

/** Reads a JSON number with all its digits. None of the fields has more than 20. */
function readNumber(_key: string, value: unknown, context?: { source?: string }): unknown {
  return typeof value === "number" && /^[0-9]{1,20}$/.test(context?.source ?? "") ? BigInt(context!.source!) : value;
}

function parseService(text: string): Service {
  let parsed: unknown;
  try {
    parsed = JSON.parse(text, readNumber as (key: string, value: unknown) => unknown);
  } catch (error) {
    throw new Invalid((error as Error).message);
  }
  const isNumber = (bits: bigint) => (value: unknown) => typeof value === "bigint" && value < 1n << bits;
  const isText = (value: unknown) => typeof value === "string";
  const isFlag = (value: unknown) => typeof value === "boolean";
  const checks: Record<keyof Service, (value: unknown) => boolean> = {
    host: isText,
    port: isNumber(16n),
    weight: isNumber(32n),
    healthy: isFlag,
    draining: isFlag,
    started: isNumber(64n),
    tags: (value) => Array.isArray(value) && value.every(isText),
  };
  const names = Object.keys(checks) as (keyof Service)[];
  if (typeof parsed !== "object" || parsed === null || Object.keys(parsed).length !== names.length) {
    throw new Invalid(`expected an object with the fields ${names.join(", ")}`);
  }
  const service = parsed as Service;
  for (const name of names) {
    if (!(name in service) || !checks[name](service[name])) throw new Invalid(`${name}: missing, or of a wrong type`);
  }
  return service;
}

function pushNumber(raw: number[], number: bigint, bytes: number): void {
  for (let shift = BigInt(8 * (bytes - 1)); shift >= 0n; shift -= 8n) raw.push(Number((number >> shift) & 0xffn));
}

function pushText(raw: number[], name: string, text: string): void {
  const bytes = encodeUtf8(text);
  pushLength(raw, name, bytes.length);
  raw.push(...bytes);
}

function pushLength(raw: number[], name: string, length: number): void {
  if (length > 255) throw new Invalid(`${name}: length ${length} exceeds the limit 255`);
  raw.push(length);
}

exportCodecs(new ServiceCodec(), new UuidKey());
