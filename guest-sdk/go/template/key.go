// A codec of keys that are a big-endian uint32, as a decimal number.
package main

import (
	"encoding/binary"
	"strconv"

	"ktables/codec"
	"ktables/key"
)

func init() { key.Export(id{}) }

func main() {}

type id struct{}

func (id) DecodeKey(raw []byte) (string, error) {
	if len(raw) != 4 {
		return "", codec.Malformed("expected 4 bytes, found %d", len(raw))
	}
	return strconv.FormatUint(uint64(binary.BigEndian.Uint32(raw)), 10), nil
}

func (id) EncodeKey(text string) ([]byte, error) {
	number, err := strconv.ParseUint(text, 10, 32)
	// Each key has one text only: no leading zeros.
	if err != nil || strconv.FormatUint(number, 10) != text {
		return nil, codec.Invalid("expected a whole number below 2^32")
	}
	return binary.BigEndian.AppendUint32(nil, uint32(number)), nil
}
