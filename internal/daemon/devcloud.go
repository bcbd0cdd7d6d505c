package daemon

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"debug/elf"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/gantry-project/gantry/config"
	"github.com/gantry-project/gantry/driver/messaging/inproc"
	"github.com/gantry-project/gantry/internal/devcloud"
	"github.com/gantry-project/gantry/internal/devcloud/network"
	"github.com/gantry-project/gantry/internal/errdefs"
	"github.com/gantry-project/gantry/internal/failpoint"
	"github.com/gantry-project/gantry/netbridge/dhcp"
	"github.com/gantry-project/gantry/netbridge/dhcp6"
	"github.com/gantry-project/gantry/netbridge/dns"
	"github.com/gantry-project/gantry/netbridge/fabric"
)

// CloudOptions of Cloud.
type CloudOptions struct {
	// State is the directory of everything that must survive.
	State string
	// Listen is the address of all services: HOST:PORT.
	Listen string
	// CertFile and KeyFile are of the certificate; without, only addresses of
	// the loopback are served.
	CertFile, KeyFile string
	LogFile           string
	// KeepDeleted is how long rows of deleted instances are kept; 0 is for ever.
	KeepDeleted time.Duration
	// SnapshotFormat is [gantry] snapshot_format of the compute host; empty is its
	// default.
	SnapshotFormat string
	Debug          bool
	Failpoints     string
	Version        string
	// Ready is told how to go on once an instance can be made; Program is how
	// the reader calls this program.
	Ready   io.Writer
	Program string
}

// Times of the server: a client that is slower than the first is let go. What a
// body may take is not bounded, since images are sent.
const (
	headerTimeout = 10 * time.Second
	idleTimeout   = 2 * time.Minute
)

// Cloud runs the embedded cloud with a compute service until ctx ends;
// instances go on.
func Cloud(ctx context.Context, o CloudOptions) (err error) {
	if o.State, err = filepath.Abs(o.State); err != nil {
		return err
	}
	if o.CertFile != "" {
		if o.CertFile, err = filepath.Abs(o.CertFile); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(o.State, 0o700); err != nil {
		return fmt.Errorf("state of the cloud: %w", err)
	}
	log, sink, err := logger(&config.Config{Default: config.Default{LogFile: o.LogFile, Debug: o.Debug}})
	if err != nil {
		return err
	}
	defer sink.close()
	if err := failpoint.Arm(o.Failpoints); err != nil {
		return err
	}
	unlock, err := lockState(o.State)
	if err != nil {
		return err
	}
	defer unlock()
	listener, url, err := o.listen(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = listener.Close() }() // the server has closed it
	broker := inproc.NewBroker()
	host, err := os.Hostname()
	if err != nil {
		return err
	}
	var c *devcloud.Cloud // it has networks only once it runs
	nets := cloudFabric(o.State, fabric.Options{
		Metadata: func(at fabric.Place, w http.ResponseWriter, r *http.Request) {
			c.ServeMetadata(at.Router, at.Network, w, r)
		},
		Lease: func(port, mac string) (dhcp.Lease, bool) {
			l, err := c.LeaseAt(ctx, port, mac)
			return fabricLease(l), err == nil
		},
		Lease6: func(port, mac string) (dhcp6.Lease, bool) {
			l, err := c.Lease6At(ctx, port, mac)
			return dhcp6.Lease{Addresses: l.Addresses, DNS: l.DNS, Domain: network.Domain}, err == nil
		},
		Names:  func(id string) []dns.Name { return each(c.Names(ctx, id), fabricName) },
		Domain: network.Domain,
	})
	c, err = devcloud.Open(ctx, devcloud.Options{
		State: o.State, URL: url, CAFile: o.CertFile, KeepDeleted: o.KeepDeleted, Host: host, Busybox: busybox(log),
		Fabric:    hostFabric{nets},
		Transport: inproc.New(broker), Log: log,
	})
	if err != nil {
		return fmt.Errorf("open the cloud: %w", err)
	}
	// a terminal that is closed ends the cloud as it does other programs
	a, done, err := attend(ctx, attendantOptions{reportDir: func() string { return "" }, log: log})
	if err != nil {
		return errors.Join(err, c.Close())
	}
	defer done()
	run := &embedded{o: o, attendant: a, cloud: c, broker: broker, url: url, host: host, listening: make(chan struct{}), log: log}
	err = run.serve(ctx, listener)
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
	defer cancel()
	return errors.Join(err, nets.Close(ending), c.Close())
}

// embedded is one run of Cloud.
type embedded struct {
	o         CloudOptions
	cloud     *devcloud.Cloud
	broker    *inproc.Broker
	url, host string
	listening chan struct{} // closed when the compute service takes messages
	attendant *attendant
	log       zerolog.Logger
}

// serve runs the services until the compute service has ended, which ends with
// ctx: what it still has to say is heard.
func (e *embedded) serve(ctx context.Context, l net.Listener) error {
	ctx, stopCompute := context.WithCancel(ctx)
	defer stopCompute()
	life, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	group, life := errgroup.WithContext(life)
	context.AfterFunc(life, stopCompute) // a service has failed
	server := &http.Server{
		Handler: e.cloud.Handler(), ReadHeaderTimeout: headerTimeout, IdleTimeout: idleTimeout,
		BaseContext: func(net.Listener) context.Context { return life },
	}
	group.Go(func() error {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		<-life.Done()
		ending, cancel := context.WithTimeout(context.WithoutCancel(life), grace)
		defer cancel()
		return server.Shutdown(ending)
	})
	group.Go(func() error { return e.cloud.Run(life) })
	group.Go(func() error {
		defer stop()
		return e.compute(ctx)
	})
	group.Go(func() error { return e.greet(ctx) })
	return group.Wait()
}

// compute is the compute service: the one that a real OpenStack gets, with this
// cloud for its control plane.
func (e *embedded) compute(ctx context.Context) error {
	cfg, err := config.Load(config.Sources{Overrides: e.overrides(e.cloud.ServicePassword())})
	if err != nil {
		return err
	}
	select {
	case <-e.cloud.Heard():
	case <-ctx.Done():
		return nil
	}
	return runCompute(ctx, computeOptions{
		cfg: cfg, version: e.o.Version, log: e.log, attendant: e.attendant,
		open: func(_ context.Context, cfg *config.Config, log zerolog.Logger) (*wire, error) {
			return newWire(inproc.New(e.broker), cfg, log)
		},
		ready: func() { close(e.listening) },
	})
}

// overrides is the configuration of the compute service.
func (e *embedded) overrides(password string) []string {
	set := []string{
		"DEFAULT.host=" + e.host, "DEFAULT.my_ip=127.0.0.1", "DEFAULT.transport_url=inproc://",
		"DEFAULT.state_path=" + filepath.Join(e.o.State, "compute"), "DEFAULT.periodic_fuzzy_delay=0", "gantry.migration_port=0",
		"gantry.cgroup=gantry-cloud-" + cloudName(e.o.State), "service_user.send_service_user_token=true",
	}
	if e.cloud != nil { // nil for who purges
		vnc, serial := e.cloud.ConsoleURLs()
		set = append(set, "vnc.novncproxy_base_url="+vnc, "serial_console.enabled=true", "serial_console.base_url="+serial)
	}
	if e.o.SnapshotFormat != "" {
		set = append(set, "gantry.snapshot_format="+e.o.SnapshotFormat)
	}
	for section, user := range map[string]string{
		"keystone_authtoken": "nova", "service_user": "nova", "glance": "glance", "placement": "placement", "neutron": "neutron",
	} {
		for key, value := range map[string]string{
			"auth_url": e.url + "/identity/v3", "username": user, "password": password, "project_name": "service",
			"user_domain_id": "default", "project_domain_id": "default", "cafile": e.o.CertFile,
		} {
			set = append(set, section+"."+key+"="+value)
		}
	}
	return set
}

// greet waits until the cloud can be used and says how.
func (e *embedded) greet(ctx context.Context) error {
	select {
	case <-e.listening:
	case <-ctx.Done():
		return nil // the end came first
	}
	if err := e.cloud.AwaitHost(ctx, e.host); err != nil {
		return nil //nolint:nilerr // as above
	}
	e.log.Info().Str("url", e.url).Msg("cloud ready")
	_, err := fmt.Fprintf(e.o.Ready, greeting, e.url, e.o.Program, e.o.State)
	return err
}

const greeting = `The cloud is up at %[1]s. In another shell:

  eval "$(%[2]s cloud env --state %[3]s --user demo)"   # a tenant; without --user the administrator
  openstack server create --image busybox --flavor m1.tiny --network private --wait first
  openstack console log show first

or with %[3]s/clouds.yaml: export OS_CLIENT_CONFIG_FILE of it, OS_CLOUD=gantry or gantry-demo.
`

// listen opens the address and returns the URL that clients use.
func (o CloudOptions) listen(ctx context.Context) (net.Listener, string, error) {
	host, _, err := net.SplitHostPort(o.Listen)
	if err != nil {
		return nil, "", fmt.Errorf("listen on %q: %w: %w", o.Listen, err, errdefs.ErrInvalid)
	}
	if (o.CertFile == "") != (o.KeyFile == "") {
		return nil, "", fmt.Errorf("a certificate needs its key, and a key its certificate: %w", errdefs.ErrInvalid)
	}
	if ip := net.ParseIP(host); o.CertFile == "" && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, "", fmt.Errorf("listen on %s: not the loopback: passwords and tokens would be readable on the way; "+
			"give --tls-cert and --tls-key, or listen on 127.0.0.1: %w", o.Listen, errdefs.ErrInvalid)
	}
	var config *tls.Config
	if o.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(o.CertFile, o.KeyFile)
		if err != nil {
			return nil, "", fmt.Errorf("certificate of the cloud: %w", err)
		}
		config = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", o.Listen)
	if err != nil {
		return nil, "", fmt.Errorf("listen for the cloud: %w", err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String()) // asked for port 0: the one that we got
	if err != nil {
		return nil, "", err
	}
	url := "http://" + net.JoinHostPort(host, port)
	if config != nil {
		l, url = tls.NewListener(l, config), "https://"+net.JoinHostPort(host, port)
	}
	return l, url, nil
}

// CloudEnv returns the shell settings of a user, "admin" or "demo".
func CloudEnv(state, user string) ([]byte, error) {
	text, err := devcloud.Env(state, user)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("no cloud has been started with the state in %s", state)
	}
	return text, err
}

// lockState keeps a second cloud away from a state directory until done is
// called, or the process ends.
func lockState(dir string) (done func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state of the cloud: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("another cloud runs with the state in %s: %w", dir, errdefs.ErrConflict)
	}
	return func() { _ = f.Close() }, nil
}

// runDir is where a cloud has what does not outlive a boot.
const runDir = "/run/gantry"

// cloudFabric is the networks of a cloud, with who answers guests there.
func cloudFabric(state string, o fabric.Options) *fabric.Fabric {
	o.Cloud, o.Dir = cloudName(state), filepath.Join(runDir, cloudName(state))
	return fabric.New(o)
}

// cloudName is what tells a cloud's groups, bridges and rules from those of
// others on one host.
func cloudName(state string) string {
	sum := sha256.Sum256([]byte(state))
	return hex.EncodeToString(sum[:4])
}

// busybox is the static one of this host, where Debian's packages put it; none
// is no image in a new cloud.
func busybox(log zerolog.Logger) string {
	for _, name := range []string{"/bin/busybox", "/usr/bin/busybox"} {
		f, err := elf.Open(name)
		if err != nil {
			continue
		}
		dynamic := slices.ContainsFunc(f.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
		if err := f.Close(); err == nil && !dynamic {
			return name
		}
	}
	log.Warn().Str("cost", "a new cloud has no image").Str("remedy", "install a static busybox (Debian: busybox-static), or upload an image").
		Msg("no busybox to make an image of")
	return ""
}
