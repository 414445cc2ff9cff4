// A codec for a compact binary record of a service instance, which becomes JSON, and for 16-byte keys, which become
// UUID text. examples/service-record is the same codec in Rust; it describes the format.
package main

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"ktables/codec"
	"ktables/key"
	"ktables/value"
)

func init() {
	value.Export(serviceRecord{})
	key.Export(serviceRecord{})
}

func main() {}

type serviceRecord struct{}

const (
	version  = 1
	healthy  = 1
	draining = 2
)

// service is the content of a record.
type service struct {
	Host     string   `json:"host"`
	Port     uint16   `json:"port"`
	Weight   uint32   `json:"weight"`
	Healthy  bool     `json:"healthy"`
	Draining bool     `json:"draining"`
	Started  uint64   `json:"started"`
	Tags     []string `json:"tags"`
}

func (serviceRecord) Decode(raw []byte, _ []codec.Header) (string, error) {
	fields := fields{raw: raw}
	if found := fields.byte("version"); fields.err == nil && found != version {
		return "", codec.Unsupported("unsupported version %d, expected %d", found, version)
	}
	flags := fields.byte("flags")
	if fields.err == nil && flags > healthy|draining {
		return "", codec.Invalid("unknown flags %#04x, expected only 1 and 2", flags)
	}
	isHealthy, isDraining := flags&healthy != 0, flags&draining != 0
	port := binary.BigEndian.Uint16(fields.take("port", 2))
	weight := binary.BigEndian.Uint32(fields.take("weight", 4))
	started := binary.BigEndian.Uint64(fields.take("start", 8))
	host := fields.text("host")
	tags := make([]string, fields.byte("number of tags"))
	for index := range tags {
		tags[index] = fields.text("tag")
	}
	if fields.err != nil {
		return "", fields.err
	}
	if rest := len(raw) - fields.at; rest > 0 {
		return "", codec.Malformed("%d bytes after the last tag", rest)
	}
	return toJSON(service{host, port, weight, isHealthy, isDraining, started, tags})
}

func (serviceRecord) Encode(text string) (value.Encoded, error) {
	s, err := parse(text)
	if err != nil {
		return value.Encoded{}, err
	}
	raw := []byte{version, flag(s.Healthy, healthy) | flag(s.Draining, draining)}
	raw = binary.BigEndian.AppendUint16(raw, s.Port)
	raw = binary.BigEndian.AppendUint32(raw, s.Weight)
	raw = binary.BigEndian.AppendUint64(raw, s.Started)
	raw, err = appendText(raw, "host", s.Host)
	if err == nil {
		raw, err = appendLength(raw, "tags", len(s.Tags))
	}
	for _, tag := range s.Tags {
		if err == nil {
			raw, err = appendText(raw, "tag", tag)
		}
	}
	return value.Encoded{Raw: raw}, err
}

// parse reads the fields one by one, because package json takes other cases of their names, null for any value, and half
// of a surrogate pair for a character.
func parse(text string) (s service, err error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &members); err != nil {
		return s, codec.Invalid("%v", err)
	}
	var host exactText
	var tags []exactText
	// No map, whose order is random: the same text must always give the same error.
	fields := []struct {
		name string
		to   any
	}{
		{"host", &host}, {"port", &s.Port}, {"weight", &s.Weight}, {"healthy", &s.Healthy}, {"draining", &s.Draining},
		{"started", &s.Started}, {"tags", &tags},
	}
	for _, field := range fields {
		member, ok := members[field.name]
		if !ok || string(member) == "null" {
			return s, codec.Invalid("%s is missing", field.name)
		}
		if err := json.Unmarshal(member, field.to); err != nil {
			return s, codec.Invalid("%s: %v", field.name, err)
		}
	}
	if len(members) > len(fields) {
		return s, codec.Invalid("an unknown field: expected host, port, weight, healthy, draining, started and tags")
	}
	s.Host = string(host)
	for _, tag := range tags {
		s.Tags = append(s.Tags, string(tag))
	}
	return s, nil
}

// exactText is a JSON string in which nothing was replaced.
type exactText string

func (t *exactText) UnmarshalJSON(raw []byte) error {
	var text string
	if err := json.Unmarshal(raw, &text); err != nil || string(raw) == "null" {
		return fmt.Errorf("expected a text, found %s", raw)
	}
	isWritten := bytes.ContainsRune(raw, utf8.RuneError) || bytes.Contains(bytes.ToLower(raw), []byte(`\ufffd`))
	if strings.ContainsRune(text, utf8.RuneError) && !isWritten {
		return errors.New("a surrogate without its pair")
	}
	*t = exactText(text)
	return nil
}

func (serviceRecord) DecodeKey(raw []byte) (string, error) {
	if len(raw) != 16 {
		return "", codec.Malformed("expected a key of 16 bytes, found %d", len(raw))
	}
	digits := hex.EncodeToString(raw)
	return strings.Join([]string{digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]}, "-"), nil
}

func (c serviceRecord) EncodeKey(text string) ([]byte, error) {
	raw, err := hex.DecodeString(strings.ReplaceAll(text, "-", ""))
	if err == nil {
		var canonical string
		if canonical, err = c.DecodeKey(raw); err == nil && canonical == text {
			return raw, nil
		}
	}
	return nil, codec.Invalid("expected a UUID in lower case, with hyphens; found %q", text)
}

// fields reads the fields of a record, one after the other. After the first error, all are zero.
type fields struct {
	raw []byte
	at  int
	err error
}

func (f *fields) take(name string, length int) []byte {
	if rest := len(f.raw) - f.at; f.err == nil && length > rest {
		f.err = codec.Malformed("%s at byte %d: expected %d bytes, found %d", name, f.at, length, rest)
	}
	if f.err != nil {
		return make([]byte, length)
	}
	f.at += length
	return f.raw[f.at-length : f.at]
}

func (f *fields) byte(name string) byte {
	return f.take(name, 1)[0]
}

func (f *fields) text(name string) string {
	length := f.byte(name)
	at := f.at
	text := f.take(name, int(length))
	if f.err == nil && !utf8.Valid(text) {
		f.err = codec.Malformed("%s at byte %d: not UTF-8", name, at)
	}
	return string(text)
}

func appendText(raw []byte, name, text string) ([]byte, error) {
	raw, err := appendLength(raw, name, len(text))
	return append(raw, text...), err
}

func appendLength(raw []byte, name string, length int) ([]byte, error) {
	if length > 255 {
		return raw, codec.Invalid("%s: length %d exceeds the limit 255", name, length)
	}
	return append(raw, byte(length)), nil
}

func flag(isSet bool, bit byte) byte {
	if isSet {
		return bit
	}
	return 0
}

func toJSON(s service) (string, error) {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	err := encoder.Encode(s)
	// Package json escapes two characters that JSON does not need to escape.
	plain := strings.NewReplacer(`\\`, `\\`, `\u2028`, "\u2028", `\u2029`, "\u2029").Replace(text.String())
	return strings.TrimSuffix(plain, "\n"), err
}
