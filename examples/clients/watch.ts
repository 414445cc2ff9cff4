// Follows a table of `ktables serve` in a map, with what Node.js has alone.
//
//     node --experimental-strip-types watch.ts http://127.0.0.1:7470 services billing
//
// Prints the map as JSON once it has the key `billing`.

// The server sends a bookmark every ten seconds. A connection that is silent for longer is broken.
const TIMEOUT = 30_000;
const LONGEST_PAUSE = 5_000;

type Event = { type: string; key?: string; value?: unknown; id?: string };

const pause = (millis: number) => new Promise((resolve) => setTimeout(resolve, millis));

/** The entries of a table. */
class Table {
  entries = new Map<string, unknown>();
  private address: string;
  private lastId?: string;
  /** The keys of a listing that has begun. */
  private listed?: Set<string>;
  /** Called after each event that was applied. */
  onEvent = () => {};

  constructor(url: string, table: string) {
    this.address = `${url}/v1/tables/${encodeURIComponent(table)}/watch`;
  }

  /** Follows the table for ever. Connects again when a connection ends, and continues where it was. */
  async follow(): Promise<never> {
    let wait = 100;
    for (;;) {
      try {
        for await (const event of this.connect()) {
          this.apply(event);
          wait = 100;
        }
      } catch (error) {
        console.error(`connecting again: ${error}`);
      }
      await pause(wait);
      wait = Math.min(2 * wait, LONGEST_PAUSE);
    }
  }

  private async *connect(): AsyncGenerator<Event> {
    const parameters = new URLSearchParams({ old: "false" });
    if (this.lastId) parameters.set("since", this.lastId);
    const silence = new AbortController();
    let timer = setTimeout(() => silence.abort(), TIMEOUT);
    try {
      const response = await fetch(`${this.address}?${parameters}`, { signal: silence.signal });
      if (!response.ok || !response.body) throw new Error(`the server answered ${response.status}`);
      let rest = "";
      const text = new TextDecoder();
      for await (const chunk of response.body as unknown as AsyncIterable<Uint8Array>) {
        clearTimeout(timer);
        timer = setTimeout(() => silence.abort(), TIMEOUT);
        const lines = (rest + text.decode(chunk, { stream: true })).split("\n");
        rest = lines.pop() ?? "";
        for (const line of lines) yield JSON.parse(line);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  private apply(event: Event): void {
    if (event.type === "restarted" || (event.type === "entry" && !this.listed)) {
      // All entries follow. What is not among them does not exist any more.
      this.listed = new Set();
    }
    switch (event.type) {
      case "entry":
      case "put":
        this.entries.set(event.key!, event.value);
        this.listed?.add(event.key!);
        break;
      case "delete":
        this.entries.delete(event.key!);
        break;
      case "synced":
        for (const key of this.entries.keys()) {
          if (this.listed && !this.listed.has(key)) this.entries.delete(key);
        }
        this.listed = undefined;
    }
    if (event.id) this.lastId = event.id;
    this.onEvent();
  }
}

const table = new Table(process.argv[2], process.argv[3]);
table.onEvent = () => {
  if (!table.entries.has(process.argv[4])) return;
  console.log(JSON.stringify(Object.fromEntries(table.entries)));
  process.exit(0);
};
void table.follow();
