"""A scheme for keys that are a group and a member, separated by the first slash."""

import ktables


class BySlash(ktables.GroupScheme):
    def split(self, key):
        group, slash, member = key.partition("/")
        return (group, member) if slash else None

    def join(self, group, member):
        if "/" in group:
            raise ktables.Invalid("a group cannot have a slash in its name")
        return f"{group}/{member}"


ktables.export(BySlash)
