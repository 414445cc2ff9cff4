// A scheme for keys that are a group and a member, separated by the first slash.
package main

import (
	"strings"

	"ktables/codec"
	"ktables/group"
)

func init() { group.Export(bySlash{}) }

func main() {}

type bySlash struct{}

func (bySlash) Split(key string) (group, member string, ok bool) { return strings.Cut(key, "/") }

func (bySlash) Join(group, member string) (string, error) {
	if strings.Contains(group, "/") {
		return "", codec.Invalid("a group cannot have a slash in its name")
	}
	return group + "/" + member, nil
}
