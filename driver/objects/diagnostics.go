package objects

// Diagnostics is the answer of get_instance_diagnostics. Follows
// nova/objects/diagnostics.py, Diagnostics 1.0.
type Diagnostics struct{ *Object }

// DiagnosticsData is what a diagnostics answer is made of.
type DiagnosticsData struct {
	// State is pending, running, paused, shutdown, crashed or suspended.
	State string
	// Hypervisor and HypervisorOS are free text.
	Hypervisor, HypervisorOS string
	// UptimeSeconds of the guest.
	UptimeSeconds int64
	ConfigDrive   bool
	// MemoryMaxMB and MemoryUsedMB are in MiB.
	MemoryMaxMB, MemoryUsedMB int64
	// CPUNanoseconds is the time that each virtual CPU has run.
	CPUNanoseconds []int64
	NICs           []NICData
}

// NICData counts the traffic of one interface as the guest sees it.
type NICData struct {
	MAC                                  string
	RxBytes, RxPackets, RxErrors, RxDrop int64
	TxBytes, TxPackets, TxErrors, TxDrop int64
}

// diagnosticsDriver is what the answer's driver says. The field is an
// enumeration that the receiver checks, and no container driver is in it.
const diagnosticsDriver = "libvirt"

// NewDiagnostics returns the answer.
func NewDiagnostics(d DiagnosticsData) Diagnostics {
	memory := New("MemoryDiagnostics")
	memory.Set("maximum", d.MemoryMaxMB)
	memory.Set("used", d.MemoryUsedMB)

	cpus := make([]*Object, len(d.CPUNanoseconds))
	for i, t := range d.CPUNanoseconds {
		cpus[i] = New("CpuDiagnostics")
		cpus[i].Set("id", i)
		cpus[i].Set("time", t)
		cpus[i].Set("utilisation", nil)
	}
	nics := make([]*Object, len(d.NICs))
	for i, n := range d.NICs {
		nics[i] = n.object()
	}

	o := New("Diagnostics")
	o.Set("state", d.State)
	o.Set("driver", diagnosticsDriver)
	o.Set("hypervisor", orNull(d.Hypervisor))
	o.Set("hypervisor_os", orNull(d.HypervisorOS))
	o.Set("uptime", d.UptimeSeconds)
	o.Set("config_drive", d.ConfigDrive)
	o.Set("memory_details", memory)
	o.Set("cpu_details", cpus)
	o.Set("nic_details", nics)
	o.Set("disk_details", []*Object{})
	o.Set("num_cpus", len(cpus))
	o.Set("num_nics", len(nics))
	o.Set("num_disks", 0)
	return Diagnostics{o}
}

func (n NICData) object() *Object {
	o := New("NicDiagnostics")
	o.Set("mac_address", orNull(n.MAC))
	for field, v := range map[string]int64{
		"rx_octets": n.RxBytes, "rx_packets": n.RxPackets, "rx_errors": n.RxErrors, "rx_drop": n.RxDrop,
		"tx_octets": n.TxBytes, "tx_packets": n.TxPackets, "tx_errors": n.TxErrors, "tx_drop": n.TxDrop,
	} {
		o.Set(field, v)
	}
	o.Set("rx_rate", nil)
	o.Set("tx_rate", nil)
	return o
}

// Wire returns the object.
func (d Diagnostics) Wire() *Object { return d.Object }

// UnmarshalJSON reads a Diagnostics primitive.
func (d *Diagnostics) UnmarshalJSON(raw []byte) error { return read(raw, "Diagnostics", &d.Object) }
