package abi

import "unsafe"

// Packed is many byte strings in one allocation: item i is bytes[ends[i-1]:ends[i]].
type Packed struct {
	bytes []byte
	ends  []uint32
}

// ReadPacked returns the packed items of an argument. They are valid during the call.
func ReadPacked(data unsafe.Pointer, size uint32, ends unsafe.Pointer, count uint32) Packed {
	return Packed{Bytes(data, size), unsafe.Slice((*uint32)(ends), count)}
}

// Len returns the number of items.
func (p *Packed) Len() int { return len(p.ends) }

// Item returns an item.
func (p *Packed) Item(index int) []byte {
	start := uint32(0)
	if index > 0 {
		start = p.ends[index-1]
	}
	return p.bytes[start:p.ends[index]]
}

// A Batch collects the answers for many items.
type Batch struct {
	packed Packed
	errors []slotError
}

type slotError struct {
	index uint32
	err   error
}

// NewBatch returns a batch without answers, with capacity for answers that are about as long as these items.
func NewBatch(items Packed) Batch {
	return Batch{packed: Packed{make([]byte, 0, len(items.bytes)), make([]uint32, 0, len(items.ends))}}
}

// Push adds the answer for the next item.
func (b *Batch) Push(item []byte, err error) {
	if err != nil {
		b.errors = append(b.errors, slotError{uint32(b.packed.Len()), err})
		item = nil
	}
	b.packed.bytes = append(b.packed.bytes, item...)
	b.packed.ends = append(b.packed.ends, uint32(len(b.packed.bytes)))
}

// PutPacked writes the answers at an offset.
func (b *Batch) PutPacked(answer Answer, offset uintptr) {
	answer.PutBytes(offset, b.packed.bytes)
	answer.PutNumbers(offset+8, b.packed.ends)
}

// PutErrors writes the list of errors at an offset.
func (b *Batch) PutErrors(answer Answer, offset uintptr) {
	const size = 16
	list := NewAnswer(uint32(len(b.errors)) * size)
	for index, slot := range b.errors {
		at := uintptr(index) * size
		list.PutUint32(at, slot.index)
		list.PutError(at+4, slot.err)
	}
	answer.putList(offset, list.at, len(b.errors))
}

// PutNumbers writes address and length of a list of numbers at an offset, and holds it.
func (a Answer) PutNumbers(offset uintptr, numbers []uint32) {
	held = append(held, numbers)
	a.putList(offset, unsafe.Pointer(unsafe.SliceData(numbers)), len(numbers))
}

// ConvertBatch returns the answers of a function for many items, with a list of the errors.
func ConvertBatch(items Packed, convert func(item []byte) ([]byte, error)) unsafe.Pointer {
	batch := NewBatch(items)
	for index := range items.Len() {
		batch.Push(convert(items.Item(index)))
	}
	answer := NewAnswer(24)
	batch.PutPacked(answer, 0)
	batch.PutErrors(answer, 16)
	return answer.Pointer()
}
