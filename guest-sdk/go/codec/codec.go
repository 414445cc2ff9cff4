// Package codec has the types that all codecs share: errors, headers and log messages.
//
// A codec is a value with the methods of [value.Codec], [key.Codec] or [group.Scheme]. An init function exports it:
//
//	package main
//
//	func init() { value.Export(MyCodec{}) }
//
//	func main() {}
//
// A component may have a codec of values, one of keys and a group scheme; [plugin.Export] adds a description and receives
// the configuration.
//
// Build it with the standard compiler, and make a component of the module:
//
//	GOOS=wasip1 GOARCH=wasm go build -buildmode=c-shared -o codec.core.wasm .
//	ktables codec build codec.core.wasm -o codec.wasm
package codec

import (
	"errors"
	"fmt"
	"strings"

	"ktables/internal/abi"
)

// An Error says why a codec could not convert an item. The host rejects the record, counts it by kind, and shows the
// text to users: it should say what was expected, what was found, and where in the input. An error of another type
// counts as other.
type Error struct {
	kind abi.ErrorKind
	text string
}

func (e *Error) Error() string { return e.text }

// Malformed returns the error for bytes that are not in the format of the codec.
func Malformed(format string, args ...any) error { return newError(abi.Malformed, format, args) }

// Invalid returns the error for content that breaks a rule of the schema, although the format is correct.
func Invalid(format string, args ...any) error { return newError(abi.Invalid, format, args) }

// Unsupported returns the error for something that the codec does not do: it only decodes, for example, or the bytes
// have a later version of the format.
func Unsupported(format string, args ...any) error { return newError(abi.Unsupported, format, args) }

func newError(kind abi.ErrorKind, format string, args []any) error {
	return &Error{kind, fmt.Sprintf(format, args...)}
}

func init() {
	abi.KindOf = func(err error) abi.ErrorKind {
		var known *Error
		if errors.As(err, &known) {
			return known.kind
		}
		return abi.Other
	}
}

// A Header of a record has a Name (a string) and a Value ([]byte; nil is null). Headers are in the order of the record,
// and several may have the same name.
type Header = abi.Header

// A Level of a log message.
type Level uint32

// The levels of log messages. Messages at LevelInfo or above are part of the message of a fault in the same call.
const (
	LevelTrace Level = iota
	LevelDebug
	LevelInfo
	LevelWarn
	LevelError
)

// Log writes a message to the log of the host. What is not UTF-8 becomes question marks, as in the texts of errors.
func Log(level Level, format string, args ...any) {
	abi.Log(uint32(level), strings.ToValidUTF8(fmt.Sprintf(format, args...), "?"))
}
