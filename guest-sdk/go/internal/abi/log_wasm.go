package abi

import "unsafe"

//go:wasmimport ktables:codec/logging@0.1.0 log
func log(level uint32, message unsafe.Pointer, size uint32)

// Log writes a message to the log of the host.
func Log(level uint32, message string) {
	log(level, unsafe.Pointer(unsafe.StringData(message)), uint32(len(message)))
}
