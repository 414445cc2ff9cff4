// Package plugin exports the description of a component, and receives its configuration.
package plugin

import (
	"strings"
	"unsafe"

	"ktables/internal/abi"
)

// Info is the description of a component.
type Info struct {
	Name    string
	Version string
	// Whether the value codec wants the headers of records.
	WantsHeaders bool
}

// Role is what the host uses an instance for.
type Role uint32

// The roles of instances.
const (
	RoleValue Role = iota
	RoleKey
	RoleGroup
)

// Context is what an instance is used for.
type Context struct {
	Topic string
	Role  Role
	// The configuration that the user gives, as JSON text; "{}" if there is none.
	Config string
}

var (
	exportedInfo Info
	configure    func(Context) error
)

// Export describes the component. The function, if it is not nil, receives the configuration of the instance before
// the first record. If it returns an error, the table does not start, and the user sees the text. Call Export in an
// init function.
func Export(info Info, configured func(Context) error) { exportedInfo, configure = info, configured }

//go:wasmexport ktables:codec/plugin@0.1.0#describe
func describe() unsafe.Pointer {
	defer abi.ExplainPanic()
	answer := abi.NewAnswer(20)
	answer.PutText(0, exportedInfo.Name)
	answer.PutText(8, exportedInfo.Version)
	if exportedInfo.WantsHeaders {
		answer.PutByte(16, 1)
	}
	return answer.Pointer()
}

//go:wasmexport cabi_post_ktables:codec/plugin@0.1.0#describe
func described(unsafe.Pointer) { abi.Release() }

//go:wasmexport ktables:codec/plugin@0.1.0#configure
func configureInstance(
	topic unsafe.Pointer, topicSize uint32, role uint32, config unsafe.Pointer, configSize uint32,
) unsafe.Pointer {
	defer abi.ExplainPanic()
	answer := abi.NewAnswer(12)
	if configure != nil {
		context := Context{abi.Text(topic, topicSize), Role(role), abi.Text(config, configSize)}
		if err := configure(context); err != nil {
			answer.PutByte(0, 1)
			answer.PutText(4, strings.ToValidUTF8(err.Error(), "?"))
		}
	}
	return answer.Pointer()
}

//go:wasmexport cabi_post_ktables:codec/plugin@0.1.0#configure
func configured(unsafe.Pointer) { abi.Release() }
