package qcow2

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Parts of the entries of both tables.
const (
	offsetMask     = 1<<56 - 1<<9
	flagCompressed = 1 << 62
	flagZero       = 1
	subclusters    = 32
)

// readCluster fills p from one cluster, or from one subcluster of it, and
// returns how much of p it filled: at least one byte without an error.
func (i *Image) readCluster(p []byte, off int64) (int, error) {
	entry, bitmap, err := i.lookup(off)
	if err != nil {
		return 0, err
	}
	in := off & (i.cluster() - 1)
	if entry&flagCompressed != 0 {
		data, err := i.compressed(entry)
		if err != nil {
			return 0, fmt.Errorf("cluster at %d: %w", off-in, err)
		}
		return copy(p, data[in:]), nil
	}
	unit, present := i.cluster(), entry&offsetMask != 0
	switch {
	case i.extended:
		unit = i.cluster() / subclusters
		at := uint(in / unit)
		zero, allocated := bitmap>>(32+at)&1 != 0, bitmap>>at&1 != 0
		if zero && allocated {
			return 0, corrupt("a part of the cluster at %d is said to be zero and to hold data", off-in)
		}
		if allocated && !present {
			return 0, corrupt("the cluster at %d is said to hold data that is nowhere", off-in)
		}
		present = allocated
	case i.v3 && entry&flagZero != 0:
		present = false
	}
	p = p[:min(int64(len(p)), unit-in%unit)]
	if !present {
		clear(p)
		return len(p), nil
	}
	return len(p), i.readHost(p, int64(entry&offsetMask), in)
}

// readHost reads data from the cluster of the file at host. The last cluster of
// a file may be cut off: what no disk ever wrote reads as zeros.
func (i *Image) readHost(p []byte, host, in int64) error {
	if host%i.cluster() != 0 || host >= i.file {
		return corrupt("a cluster is said to be at %d of %d bytes: the file may be cut off", host, i.file)
	}
	have := max(0, min(int64(len(p)), i.file-host-in))
	clear(p[have:])
	if have == 0 {
		return nil
	}
	if n, err := i.r.ReadAt(p[:have], host+in); int64(n) < have {
		return fmt.Errorf("read qcow2 cluster: %w", unexpected(err))
	}
	return nil
}

// lookup returns the entry of the cluster that holds off, and its bitmap of
// subclusters where there are such.
func (i *Image) lookup(off int64) (entry, bitmap uint64, err error) {
	number := off >> i.clusterBits
	var first [8]byte
	// the first table is not kept: it is read once for each second table
	l1 := number / i.l2Entries()
	table, ok := i.tables.get(uint64(l1))
	if !ok {
		if _, err := i.r.ReadAt(first[:], i.l1Offset+l1*8); err != nil {
			return 0, 0, fmt.Errorf("read qcow2 table: %w", unexpected(err))
		}
		if table, err = i.readTable(int64(binary.BigEndian.Uint64(first[:]) & offsetMask)); err != nil {
			return 0, 0, err
		}
		i.tables.put(uint64(l1), table)
	}
	if len(table) == 0 {
		return 0, 0, nil
	}
	at := table[number%i.l2Entries()*i.entrySize():]
	entry = binary.BigEndian.Uint64(at)
	if i.extended {
		bitmap = binary.BigEndian.Uint64(at[8:])
	}
	return entry, bitmap, nil
}

// readTable reads a second table; nothing at all is there when host is 0.
func (i *Image) readTable(host int64) ([]byte, error) {
	if host == 0 {
		return nil, nil
	}
	if host%i.cluster() != 0 || host > i.file-i.cluster() {
		return nil, corrupt("a table is said to be at %d of %d bytes: the file may be cut off", host, i.file)
	}
	table := make([]byte, i.cluster())
	if n, err := i.r.ReadAt(table, host); n < len(table) {
		return nil, fmt.Errorf("read qcow2 table: %w", unexpected(err))
	}
	return table, nil
}

// compressed returns the content of a compressed cluster.
func (i *Image) compressed(entry uint64) ([]byte, error) {
	key := entry &^ (1 << 63)
	if data, ok := i.clusters.get(key); ok {
		return data, nil
	}
	// "Compressed Clusters Descriptor": the offset in bytes, and behind it the
	// number of further sectors of 512 bytes
	bits := 62 - (i.clusterBits - 8)
	host := int64(entry & (1<<bits - 1))
	sectors := int64(entry&(flagCompressed-1)>>bits) + 1
	end := min(host&^511+sectors*512, i.file)
	if host >= end {
		return nil, corrupt("compressed data is said to be at %d of %d bytes: the file may be cut off", host, i.file)
	}
	data := make([]byte, i.cluster())
	if err := i.inflater.inflate(data, io.NewSectionReader(i.r, host, end-host)); err != nil {
		return nil, err
	}
	i.clusters.put(key, data)
	return data, nil
}

// unexpected makes an end of file an error that cannot be mistaken for the
// disk's end.
func unexpected(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
