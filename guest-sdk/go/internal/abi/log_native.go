//go:build !wasm

package abi

import (
	"fmt"
	"os"
)

// Log writes a message to standard error, in tests that run natively.
func Log(_ uint32, message string) {
	fmt.Fprintln(os.Stderr, message)
}
