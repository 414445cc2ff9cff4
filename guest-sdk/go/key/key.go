// Package key exports codecs for the keys of records.
package key

import (
	"unsafe"

	"ktables/internal/abi"
)

// A Codec converts between the bytes of record keys and the text of keys in a table.
//
// Kafka compacts by the bytes, and a table looks keys up by the text. So both must identify the same key: encoding a
// decoded key must return the same bytes. The host checks this, and rejects other records.
type Codec interface {
	// DecodeKey returns the text of a key. The bytes are valid during the call.
	DecodeKey(raw []byte) (string, error)
	// EncodeKey returns the bytes of a key.
	EncodeKey(key string) ([]byte, error)
}

var exported Codec

// Export makes this codec the key codec of the component. Call it in an init function.
func Export(own Codec) { exported = own }

//go:wasmexport ktables:codec/key-codec@0.1.0#decode
func decode(raw unsafe.Pointer, size uint32) unsafe.Pointer {
	defer abi.ExplainPanic()
	text, err := exported.DecodeKey(abi.Bytes(raw, size))
	return abi.TextOrError(text, err)
}

//go:wasmexport cabi_post_ktables:codec/key-codec@0.1.0#decode
func decoded(unsafe.Pointer) { abi.Release() }

//go:wasmexport ktables:codec/key-codec@0.1.0#encode
func encode(key unsafe.Pointer, size uint32) unsafe.Pointer {
	defer abi.ExplainPanic()
	return abi.BytesOrError(exported.EncodeKey(abi.Text(key, size)))
}

//go:wasmexport cabi_post_ktables:codec/key-codec@0.1.0#encode
func encoded(unsafe.Pointer) { abi.Release() }

//go:wasmexport ktables:codec/key-codec-batch@0.1.0#decode
func decodeBatch(bytes unsafe.Pointer, size uint32, ends unsafe.Pointer, count uint32) unsafe.Pointer {
	defer abi.ExplainPanic()
	return abi.ConvertBatch(abi.ReadPacked(bytes, size, ends, count), func(raw []byte) ([]byte, error) {
		text, err := exported.DecodeKey(raw)
		return []byte(text), err
	})
}

//go:wasmexport cabi_post_ktables:codec/key-codec-batch@0.1.0#decode
func decodedBatch(unsafe.Pointer) { abi.Release() }

//go:wasmexport ktables:codec/key-codec-batch@0.1.0#encode
func encodeBatch(bytes unsafe.Pointer, size uint32, ends unsafe.Pointer, count uint32) unsafe.Pointer {
	defer abi.ExplainPanic()
	return abi.ConvertBatch(abi.ReadPacked(bytes, size, ends, count), func(key []byte) ([]byte, error) {
		return exported.EncodeKey(string(key))
	})
}

//go:wasmexport cabi_post_ktables:codec/key-codec-batch@0.1.0#encode
func encodedBatch(unsafe.Pointer) { abi.Release() }
