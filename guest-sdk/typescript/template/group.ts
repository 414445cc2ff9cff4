/** A scheme for keys that are a group and a member, separated by the first slash. */
import { GroupScheme, Invalid, exportCodecs, type GroupKey } from "./ktables/ktables.ts";

class BySlash extends GroupScheme {
  override split(key: string): GroupKey | null {
    const slash = key.indexOf("/");
    return slash < 0 ? null : { group: key.slice(0, slash), member: key.slice(slash + 1) };
  }

  override join(group: string, member: string): string {
    if (group.includes("/")) throw new Invalid("a group cannot have a slash in its name");
    return `${group}/${member}`;
  }
}

exportCodecs(new BySlash());
