// A codec of values that are a big-endian uint32, as a JSON number.
package main

import (
	"encoding/binary"
	"strconv"
	"strings"

	"ktables/codec"
	"ktables/value"
)

func init() { value.Export(counter{}) }

func main() {}

type counter struct{}

func (counter) Decode(raw []byte, _ []codec.Header) (string, error) {
	if len(raw) != 4 {
		return "", codec.Malformed("expected 4 bytes, found %d", len(raw))
	}
	return strconv.FormatUint(uint64(binary.BigEndian.Uint32(raw)), 10), nil
}

func (counter) Encode(text string) (value.Encoded, error) {
	number, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32)
	if err != nil {
		return value.Encoded{}, codec.Invalid("expected a whole number below 2^32")
	}
	return value.Encoded{Raw: binary.BigEndian.AppendUint32(nil, uint32(number))}, nil
}
