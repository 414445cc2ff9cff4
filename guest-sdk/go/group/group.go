// Package group exports schemes that split keys into group and member.
package group

import (
	"unsafe"

	"ktables/internal/abi"
)

// A Scheme converts between keys and pairs of a group and a member.
//
// Joining the pair of a key must return the key. Otherwise the host treats the key as foreign: it counts the record,
// and leaves it out of the grouped table.
type Scheme interface {
	// Split returns the group and the member of a key, and false if the key does not belong to the grouped table.
	Split(key string) (group, member string, ok bool)
	// Join returns the key of a member of a group.
	Join(group, member string) (string, error)
}

var exported Scheme

// Export makes this scheme the group scheme of the component. Call it in an init function.
func Export(own Scheme) { exported = own }

//go:wasmexport ktables:codec/group-scheme@0.1.0#split
func split(key unsafe.Pointer, size uint32) unsafe.Pointer {
	defer abi.ExplainPanic()
	answer := abi.NewAnswer(20)
	if group, member, ok := exported.Split(abi.Text(key, size)); ok {
		answer.PutByte(0, 1)
		answer.PutText(4, group)
		answer.PutText(12, member)
	}
	return answer.Pointer()
}

//go:wasmexport cabi_post_ktables:codec/group-scheme@0.1.0#split
func splitDone(unsafe.Pointer) { abi.Release() }

//go:wasmexport ktables:codec/group-scheme@0.1.0#join
func join(group unsafe.Pointer, groupSize uint32, member unsafe.Pointer, memberSize uint32) unsafe.Pointer {
	defer abi.ExplainPanic()
	return abi.TextOrError(exported.Join(abi.Text(group, groupSize), abi.Text(member, memberSize)))
}

//go:wasmexport cabi_post_ktables:codec/group-scheme@0.1.0#join
func joined(unsafe.Pointer) { abi.Release() }

//go:wasmexport ktables:codec/group-scheme-batch@0.1.0#split
func splitBatch(bytes unsafe.Pointer, size uint32, ends unsafe.Pointer, count uint32) unsafe.Pointer {
	defer abi.ExplainPanic()
	keys := abi.ReadPacked(bytes, size, ends, count)
	groups, members, foreign := abi.NewBatch(keys), abi.NewBatch(keys), []uint32(nil)
	for index := range keys.Len() {
		group, member, ok := exported.Split(string(keys.Item(index)))
		if !ok {
			group, member = "", ""
			foreign = append(foreign, uint32(index))
		}
		groups.Push([]byte(group), nil)
		members.Push([]byte(member), nil)
	}
	answer := abi.NewAnswer(40)
	groups.PutPacked(answer, 0)
	members.PutPacked(answer, 16)
	answer.PutNumbers(32, foreign)
	return answer.Pointer()
}

//go:wasmexport cabi_post_ktables:codec/group-scheme-batch@0.1.0#split
func splitBatchDone(unsafe.Pointer) { abi.Release() }

//go:wasmexport ktables:codec/group-scheme-batch@0.1.0#join
func joinBatch(
	groupBytes unsafe.Pointer, groupSize uint32, groupEnds unsafe.Pointer, groupCount uint32,
	memberBytes unsafe.Pointer, memberSize uint32, memberEnds unsafe.Pointer, memberCount uint32,
) unsafe.Pointer {
	defer abi.ExplainPanic()
	groups := abi.ReadPacked(groupBytes, groupSize, groupEnds, groupCount)
	members := abi.ReadPacked(memberBytes, memberSize, memberEnds, memberCount)
	index := -1
	return abi.ConvertBatch(groups, func(group []byte) ([]byte, error) {
		index++
		key, err := exported.Join(string(group), string(members.Item(index)))
		return []byte(key), err
	})
}

//go:wasmexport cabi_post_ktables:codec/group-scheme-batch@0.1.0#join
func joinedBatch(unsafe.Pointer) { abi.Release() }
