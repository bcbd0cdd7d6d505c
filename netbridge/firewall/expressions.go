package firewall

import (
	"encoding/binary"
	"net"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Words of rules of nf_tables: each is some expressions that end the rule where
// they do not match (Linux include/uapi/linux/netfilter/nf_tables.h). What is
// compared goes through the first register.

type words []expr.Any

const register = unix.NFT_REG_1

func all(parts ...words) words {
	var out words
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func equal(data []byte) expr.Any {
	return &expr.Cmp{Op: expr.CmpOpEq, Register: register, Data: data}
}

func number16(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) } //nolint:gosec // of packets

// at compares bytes of a packet.
func at(base expr.PayloadBase, offset uint32, data ...byte) words {
	return words{load(base, offset, len(data)), equal(data)}
}

func load(base expr.PayloadBase, offset uint32, length int) expr.Any {
	return &expr.Payload{DestRegister: register, Base: base, Offset: offset, Len: uint32(length)} //nolint:gosec // of packets
}

// within compares an address in the network header with a network.
func within(offset uint32, p netip.Prefix) words {
	p = p.Masked()
	if p.Bits() == 0 {
		return nil
	}
	data := p.Addr().AsSlice()
	w := words{load(expr.PayloadBaseNetworkHeader, offset, len(data))}
	if p.Bits() < p.Addr().BitLen() {
		w = append(w, &expr.Bitwise{
			SourceRegister: register, DestRegister: register, Len: uint32(len(data)), //nolint:gosec // of an address
			Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen()), Xor: make([]byte, len(data)),
		})
	}
	return append(w, equal(data))
}

func meta(key expr.MetaKey, data ...byte) words {
	return words{&expr.Meta{Key: key, Register: register}, equal(data)}
}

// layer4 is the protocol that follows the headers of IP.
func layer4(protocol int) words { return meta(expr.MetaKeyL4PROTO, byte(protocol)) } //nolint:gosec // 0 to 255

func version(v6 bool) words {
	if v6 {
		return meta(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV6)
	}
	return meta(expr.MetaKeyNFPROTO, unix.NFPROTO_IPV4)
}

// state matches connections that are in one of the states.
func state(bits uint32) words {
	return words{
		&expr.Ct{Key: expr.CtKeySTATE, Register: register},
		&expr.Bitwise{SourceRegister: register, DestRegister: register, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: register, Data: make([]byte, 4)},
	}
}

// setMark marks the packet; 0 takes the mark away.
func setMark(mark uint32) words {
	return words{
		&expr.Immediate{Register: register, Data: binaryutil.NativeEndian.PutUint32(mark)},
		&expr.Meta{Key: expr.MetaKeyMARK, SourceRegister: true, Register: register},
	}
}

func verdict(kind expr.VerdictKind) words { return words{&expr.Verdict{Kind: kind}} }

// lookup finds what key has loaded: in a set, or in a map of verdicts.
func lookup(key expr.Any, set string, verdicts bool) words {
	return words{key, &expr.Lookup{SourceRegister: register, SetName: set, IsDestRegSet: verdicts}}
}

// device is a name as the kernel compares it.
func device(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}
