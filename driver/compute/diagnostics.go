package compute

import (
	"context"
	"fmt"
	"time"

	"github.com/gantry-project/gantry/driver"
	"github.com/gantry-project/gantry/driver/messaging"
	"github.com/gantry-project/gantry/driver/objects"
	"github.com/gantry-project/gantry/internal/errdefs"
)

// diagnose asks the driver; only a running instance has diagnostics.
func (m *Manager) diagnose(ctx context.Context, o *op) (driver.Diagnostics, error) {
	r, ok := m.dep.Driver.(driver.DiagnosticsReader)
	if !ok {
		return driver.Diagnostics{}, fmt.Errorf("diagnose %s: %w", o.uuid(), errdefs.ErrUnsupported)
	}
	d, err := r.Diagnostics(ctx, driver.InstanceUUID(o.uuid()))
	if err != nil {
		return d, fmt.Errorf("diagnose %s: %w", o.uuid(), err)
	}
	if d.State != driver.PowerRunning {
		return d, messaging.NovaError("InstanceInvalidState", 409,
			"Instance %s in power state %s. Cannot get_diagnostics while the instance is in this state.", o.uuid(), d.State)
	}
	return d, nil
}

// getDiagnostics returns the free form of API 2.47 and older.
func (m *Manager) getDiagnostics(ctx context.Context, o *op) (any, error) {
	d, err := m.diagnose(ctx, o)
	if err != nil {
		return nil, err
	}
	out := map[string]any{
		"memory": d.MemoryMaxBytes >> 10, "memory-actual": d.MemoryMaxBytes >> 10, "memory-rss": d.MemoryUsed >> 10,
	}
	for i := range max(d.NumCPUs, 0) {
		out[fmt.Sprintf("cpu%d_time", i)] = int64(d.CPUTime) / max(d.NumCPUs, 1)
	}
	for i, n := range d.NICs {
		p := fmt.Sprintf("nic%d_", i)
		out[p+"rx"], out[p+"rx_packets"], out[p+"rx_errors"], out[p+"rx_drop"] = n.RxBytes, n.RxPackets, n.RxErrors, n.RxDrop
		out[p+"tx"], out[p+"tx_packets"], out[p+"tx_errors"], out[p+"tx_drop"] = n.TxBytes, n.TxPackets, n.TxErrors, n.TxDrop
	}
	return out, nil
}

// getInstanceDiagnostics returns the object (nova/objects/diagnostics.py). Its
// driver field knows no container driver; libvirt is the nearest it allows.
func (m *Manager) getInstanceDiagnostics(ctx context.Context, o *op) (any, error) {
	d, err := m.diagnose(ctx, o)
	if err != nil {
		return nil, err
	}
	return diagnosticsObject(d, o.inst.String("config_drive") == "True"), nil
}

func diagnosticsObject(d driver.Diagnostics, configDrive bool) *objects.Object {
	part := func(name string, fields map[string]any) *objects.Object {
		x := &objects.Object{Name: name, Version: "1.0"}
		for k, v := range fields {
			x.Set(k, v)
		}
		return x
	}
	var cpus, nics []*objects.Object
	for i := range max(d.NumCPUs, 0) {
		cpus = append(cpus, part("CpuDiagnostics", map[string]any{
			"id": i, "time": int64(d.CPUTime) / d.NumCPUs, "utilisation": nil,
		}))
	}
	for _, n := range d.NICs {
		nics = append(nics, part("NicDiagnostics", map[string]any{
			"mac_address": n.MAC,
			"rx_octets":   n.RxBytes, "rx_packets": n.RxPackets, "rx_errors": n.RxErrors, "rx_drop": n.RxDrop, "rx_rate": nil,
			"tx_octets": n.TxBytes, "tx_packets": n.TxPackets, "tx_errors": n.TxErrors, "tx_drop": n.TxDrop, "tx_rate": nil,
		}))
	}
	return part("Diagnostics", map[string]any{
		"state": d.State.String(), "driver": "libvirt", "hypervisor": "gantry", "hypervisor_os": "linux",
		"uptime": int64(d.Uptime / time.Second), "config_drive": configDrive,
		"memory_details": part("MemoryDiagnostics", map[string]any{"maximum": d.MemoryMaxBytes >> 20, "used": d.MemoryUsed >> 20}),
		"cpu_details":    cpus, "nic_details": nics, "disk_details": []*objects.Object{},
		"num_cpus": d.NumCPUs, "num_nics": len(d.NICs), "num_disks": 0,
	})
}
