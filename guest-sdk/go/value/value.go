// Package value exports codecs for the values of records.
package value

import (
	"unsafe"

	"ktables/codec"
	"ktables/internal/abi"
)

// A Codec converts between the bytes of record values and JSON text.
//
// It must be pure: its answer depends on the input and the configuration only, not on earlier calls. The host runs
// several instances at once, and may replace any of them at any time.
type Codec interface {
	// Decode returns JSON text. The bytes are valid during the call. Headers are empty unless plugin.Info requests
	// them. A record with a null value does not reach the codec.
	Decode(raw []byte, headers []codec.Header) (string, error)
	// Encode returns the bytes of a value. A codec that only decodes returns codec.Unsupported.
	Encode(value string) (Encoded, error)
}

// An Encoded value.
type Encoded struct {
	// The value of the record. It cannot be null: the host writes tombstones without the codec.
	Raw []byte
	// Headers to write with the record.
	Headers []codec.Header
}

var exported Codec

// Export makes this codec the value codec of the component. Call it in an init function.
func Export(own Codec) { exported = own }

//go:wasmexport ktables:codec/value-codec@0.1.0#decode
func decode(raw unsafe.Pointer, size uint32, headers unsafe.Pointer, count uint32) unsafe.Pointer {
	defer abi.ExplainPanic()
	return abi.TextOrError(exported.Decode(abi.Bytes(raw, size), abi.Headers(headers, count)))
}

//go:wasmexport cabi_post_ktables:codec/value-codec@0.1.0#decode
func decoded(unsafe.Pointer) { abi.Release() }

//go:wasmexport ktables:codec/value-codec@0.1.0#encode
func encode(value unsafe.Pointer, size uint32) unsafe.Pointer {
	defer abi.ExplainPanic()
	encoded, err := exported.Encode(abi.Text(value, size))
	answer := abi.NewAnswer(20)
	if err != nil {
		answer.PutByte(0, 1)
		answer.PutError(4, err)
	} else {
		answer.PutBytes(4, encoded.Raw)
		answer.PutHeaders(12, encoded.Headers)
	}
	return answer.Pointer()
}

//go:wasmexport cabi_post_ktables:codec/value-codec@0.1.0#encode
func encoded(unsafe.Pointer) { abi.Release() }

//go:wasmexport ktables:codec/value-codec-batch@0.1.0#decode
func decodeBatch(
	bytes unsafe.Pointer, size uint32, ends unsafe.Pointer, count uint32, lists unsafe.Pointer, listCount uint32,
) unsafe.Pointer {
	defer abi.ExplainPanic()
	items, headers := abi.ReadPacked(bytes, size, ends, count), abi.HeaderLists(lists, listCount)
	batch := abi.NewBatch(items)
	for index := range items.Len() {
		var own []codec.Header
		if index < len(headers) {
			own = headers[index]
		}
		text, err := exported.Decode(items.Item(index), own)
		batch.Push([]byte(text), err)
	}
	answer := abi.NewAnswer(24)
	batch.PutPacked(answer, 0)
	batch.PutErrors(answer, 16)
	return answer.Pointer()
}

//go:wasmexport cabi_post_ktables:codec/value-codec-batch@0.1.0#decode
func decodedBatch(unsafe.Pointer) { abi.Release() }

//go:wasmexport ktables:codec/value-codec-batch@0.1.0#encode
func encodeBatch(bytes unsafe.Pointer, size uint32, ends unsafe.Pointer, count uint32) unsafe.Pointer {
	defer abi.ExplainPanic()
	items := abi.ReadPacked(bytes, size, ends, count)
	batch, headers, hasHeaders := abi.NewBatch(items), make([][]codec.Header, items.Len()), false
	for index := range items.Len() {
		encoded, err := exported.Encode(string(items.Item(index)))
		batch.Push(encoded.Raw, err)
		headers[index] = encoded.Headers
		hasHeaders = hasHeaders || len(encoded.Headers) > 0
	}
	if !hasHeaders {
		headers = nil
	}
	answer := abi.NewAnswer(32)
	batch.PutPacked(answer, 0)
	answer.PutHeaderLists(16, headers)
	batch.PutErrors(answer, 24)
	return answer.Pointer()
}

//go:wasmexport cabi_post_ktables:codec/value-codec-batch@0.1.0#encode
func encodedBatch(unsafe.Pointer) { abi.Release() }
