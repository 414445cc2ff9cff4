// Package abi converts between Go values and the canonical ABI of the component model, in which the host passes
// arguments and reads answers.
package abi

import (
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"unsafe"
)

// held keeps what the host uses: arguments until the call begins, and answers until the host has read them.
var held []any

// Allocate returns memory for this many bytes, at a multiple of eight, that lives until the call ends.
func Allocate(size uint32) unsafe.Pointer {
	words := make([]uint64, size/8+1)
	held = append(held, words)
	return unsafe.Pointer(&words[0])
}

// Release ends a call: nothing that it held is used any more.
func Release() {
	clear(held)
	held = held[:0]
}

//go:wasmexport cabi_realloc
func realloc(old unsafe.Pointer, oldSize, align, size uint32) unsafe.Pointer {
	memory := Allocate(size)
	if oldSize > 0 {
		copy(unsafe.Slice((*byte)(memory), size), unsafe.Slice((*byte)(old), oldSize))
	}
	return memory
}

// levelError is the highest level of log messages.
const levelError = 4

// ExplainPanic logs a panic, and ends the call. Deferred by every exported function.
func ExplainPanic() {
	if reason := recover(); reason != nil {
		Log(levelError, strings.ToValidUTF8(fmt.Sprintf("panic: %v\n%s", reason, debug.Stack()), "?"))
		os.Exit(2)
	}
}

// Bytes returns the bytes of an argument. They are valid during the call.
func Bytes(data unsafe.Pointer, size uint32) []byte {
	return unsafe.Slice((*byte)(data), size)
}

// Text returns the text of an argument, as a copy.
func Text(data unsafe.Pointer, size uint32) string {
	return string(Bytes(data, size))
}

// ErrorKind is the number of a kind of error.
type ErrorKind uint8

// The kinds of errors.
const (
	Malformed ErrorKind = iota
	Invalid
	Unsupported
	Other
)

// KindOf returns the kind of an error. Set by the package codec.
var KindOf func(err error) ErrorKind

// A Header of a record. A nil value is null.
type Header struct {
	Name  string
	Value []byte
}

// An Answer is memory that the host reads.
type Answer struct{ at unsafe.Pointer }

// NewAnswer returns an answer with this many bytes, all zero.
func NewAnswer(size uint32) Answer { return Answer{Allocate(size)} }

// Pointer returns the address of the answer.
func (a Answer) Pointer() unsafe.Pointer { return a.at }

// PutByte writes a byte at an offset.
func (a Answer) PutByte(offset uintptr, value byte) {
	*(*byte)(unsafe.Add(a.at, offset)) = value
}

// PutUint32 writes a number at an offset.
func (a Answer) PutUint32(offset uintptr, value uint32) {
	*(*uint32)(unsafe.Add(a.at, offset)) = value
}

// PutBytes writes address and length of these bytes at an offset, and holds them.
func (a Answer) PutBytes(offset uintptr, value []byte) {
	held = append(held, value)
	a.putList(offset, unsafe.Pointer(unsafe.SliceData(value)), len(value))
}

// PutText writes address and length of a text at an offset, and holds it.
func (a Answer) PutText(offset uintptr, value string) {
	held = append(held, value)
	a.putList(offset, unsafe.Pointer(unsafe.StringData(value)), len(value))
}

// PutError writes an error at an offset: its kind, and its text.
func (a Answer) PutError(offset uintptr, err error) {
	a.PutByte(offset, byte(KindOf(err)))
	// The host refuses text that is not UTF-8.
	a.PutText(offset+4, strings.ToValidUTF8(err.Error(), "?"))
}

// headerSize is the number of bytes of a header.
const headerSize = 20

// PutHeaders writes address and length of a list of headers at an offset.
func (a Answer) PutHeaders(offset uintptr, headers []Header) {
	list := NewAnswer(uint32(len(headers)) * headerSize)
	for index, header := range headers {
		at := uintptr(index) * headerSize
		list.PutText(at, header.Name)
		if header.Value != nil {
			list.PutByte(at+8, 1)
			list.PutBytes(at+12, header.Value)
		}
	}
	a.putList(offset, list.at, len(headers))
}

// PutHeaderLists writes address and length of a list of lists of headers at an offset.
func (a Answer) PutHeaderLists(offset uintptr, lists [][]Header) {
	list := NewAnswer(uint32(len(lists)) * 8)
	for index, headers := range lists {
		list.PutHeaders(uintptr(index)*8, headers)
	}
	a.putList(offset, list.at, len(lists))
}

// putList writes address and length of a list at an offset. An address has 32 bits, although Go's pointers have 64.
func (a Answer) putList(offset uintptr, list unsafe.Pointer, count int) {
	a.PutUint32(offset, uint32(uintptr(list)))
	a.PutUint32(offset+4, uint32(count))
}

// Headers returns the headers of an argument.
func Headers(list unsafe.Pointer, count uint32) []Header {
	if count == 0 {
		return nil
	}
	headers := make([]Header, count)
	for index := range headers {
		at := unsafe.Add(list, uintptr(index)*headerSize)
		headers[index].Name = Text(pair(at, 0))
		if *(*byte)(unsafe.Add(at, 8)) == 1 {
			headers[index].Value = Bytes(pair(at, 12))
		}
	}
	return headers
}

// HeaderLists returns the lists of headers of an argument: one for each item, or none.
func HeaderLists(lists unsafe.Pointer, count uint32) [][]Header {
	all := make([][]Header, count)
	for index := range all {
		all[index] = Headers(pair(unsafe.Add(lists, uintptr(index)*8), 0))
	}
	return all
}

// pair returns the address and the length at an offset.
func pair(at unsafe.Pointer, offset uintptr) (unsafe.Pointer, uint32) {
	address, length := *(*uint32)(unsafe.Add(at, offset)), *(*uint32)(unsafe.Add(at, offset+4))
	return unsafe.Add(unsafe.Pointer(nil), address), length
}

// TextOrError returns the answer of a function that returns a text or an error.
func TextOrError(text string, err error) unsafe.Pointer {
	return BytesOrError([]byte(text), err)
}

// BytesOrError returns the answer of a function that returns bytes or an error.
func BytesOrError(bytes []byte, err error) unsafe.Pointer {
	answer := NewAnswer(16)
	if err != nil {
		answer.PutByte(0, 1)
		answer.PutError(4, err)
	} else {
		answer.PutBytes(4, bytes)
	}
	return answer.Pointer()
}
