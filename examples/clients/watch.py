"""Follows a table of `ktables serve` in a dictionary, with Python's standard library alone.

    python3 watch.py http://127.0.0.1:7470 services billing

Prints the dictionary as JSON once it has the key `billing`.
"""

import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

# The server sends a bookmark every ten seconds. A connection that is silent for longer is broken.
TIMEOUT = 30
LONGEST_PAUSE = 5


class Table:
    """The entries of a table. `on_event` is called after each event that was applied."""

    def __init__(self, url, table, on_event, token=None):
        self.address = f"{url}/v1/tables/{urllib.parse.quote(table, safe='')}/watch"
        self.headers = {"Accept": "application/x-ndjson"}
        if token:
            self.headers["Authorization"] = f"Bearer {token}"
        self.entries = {}
        self.on_event = on_event
        self._last_id = None
        self._listed = None

    def follow(self):
        """Follows the table for ever. Connects again when a connection ends, and continues where it was."""
        pause = 0.1
        while True:
            try:
                for line in self._connect():
                    self._apply(json.loads(line))
                    pause = 0.1
            except (OSError, ValueError, urllib.error.HTTPError) as error:
                print(f"connecting again: {error}", file=sys.stderr)
            time.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _connect(self):
        parameters = {"old": "false"}
        if self._last_id:
            parameters["since"] = self._last_id
        address = f"{self.address}?{urllib.parse.urlencode(parameters)}"
        return urllib.request.urlopen(urllib.request.Request(address, headers=self.headers), timeout=TIMEOUT)

    def _apply(self, event):
        kind = event["type"]
        if kind == "restarted" or (kind == "entry" and self._listed is None):
            # All entries follow. What is not among them does not exist any more.
            self._listed = set()
        if kind in ("entry", "put"):
            self.entries[event["key"]] = event["value"]
            if self._listed is not None:
                self._listed.add(event["key"])
        elif kind == "delete":
            self.entries.pop(event["key"], None)
        elif kind == "synced":
            if self._listed is not None:
                for key in self.entries.keys() - self._listed:
                    del self.entries[key]
                self._listed = None
        if "id" in event:
            self._last_id = event["id"]
        self.on_event(event)


if __name__ == "__main__":
    URL, TABLE, KEY = sys.argv[1:]

    def print_if_it_has_the_key(_):
        if KEY in table.entries:
            print(json.dumps(table.entries))
            sys.exit()

    table = Table(URL, TABLE, print_if_it_has_the_key)
    table.follow()
