package optiondoc

import (
	"strings"

	"github.com/gantry-project/gantry/internal/roff"
)

const manIntro = `gantry compute reads its configuration from the files that --config-file names, in the format of nova.conf, and no other file. The unit of the Debian package names /etc/gantry/gantry.conf. The nova.conf of the host can be given as it is: options have the names, units and defaults of Nova, oslo.messaging and keystoneauth, and what belongs to nova-compute only is passed over. The section [gantry] has what Nova has no option for; an unknown key is refused there.

Later values win: the default; each --config-file, in the order of the command line; the environment, GANTRY_SECTION_KEY in capitals; --set SECTION.KEY=VALUE.

Lines are "key = value"; # begins a comment at the start of a line; lines that begin with blanks continue the one before; $option and ${section.option} stand for another option's value, $$ for a dollar sign. Seconds are numbers, fractions allowed; booleans are true or false, yes or no, on or off, 1 or 0; lists are separated by commas.

gantry config --config-file FILE checks it and prints what is in effect, without passwords.`

// example is the least that a host needs.
const example = `[DEFAULT]
transport_url = rabbit://openstack:PASSWORD@controller:5672/
my_ip = 192.0.2.11

[placement]
auth_url = http://controller:5000/v3
username = placement
password = PASSWORD
project_name = service
user_domain_id = default
project_domain_id = default

[neutron]
# the same keys, username = neutron

[service_user]
# the same keys, username = nova
send_service_user_token = true
`

// Manual renders gantry.conf(5).
func (r Reference) Manual() []byte {
	p := roff.New("gantry.conf", "5", "configuration of gantry compute")
	p.Section("Description")
	p.Text(manIntro)
	p.Section("Example")
	p.Verbatim(example)
	p.Section("Options")
	for _, s := range r.Sections {
		p.Sub("[" + s.Name + "]")
		if s.Auth {
			p.Text("Whom to ask and as whom: see Authentication below.")
		}
		manOptions(p, s.Options)
	}
	p.Sub("Authentication")
	p.Text("Options of each section that names a service.")
	manOptions(p, r.Authentication)
	p.Section("See also")
	p.Text("gantry(1), gantry-services(8), gantry-admin(8)")
	return p.Bytes()
}

func manOptions(p *roff.Page, options []Option) {
	for _, o := range options {
		kind := o.Kind
		switch {
		case o.Required:
			kind += ", required"
		case o.Default != "":
			kind += ", default " + o.Default
		}
		text := o.Doc
		if o.Secret {
			text += " (never printed)"
		}
		p.Term(o.Key, "("+kind+")", text)
	}
}

const sampleIntro = `# Configuration of gantry compute, gantry.conf(5). Nothing is set yet: the service does not start before transport_url and
# the identity service of [placement], [neutron] and [service_user] are. Beside a nova-compute, or where one was: leave this
# file as it is and give the service the host's nova.conf too (systemctl edit gantry-compute):
#
#     [Service]
#     ExecStart=
#     ExecStart=/usr/bin/gantry compute --config-file /etc/nova/nova.conf --config-file /etc/gantry/gantry.conf
#
# gantry config --config-file FILE checks what is set and prints what is in effect.
# The least that a host needs:
#
`

// Sample renders a configuration file in which every option stands with its
// meaning and default, commented out.
func (r Reference) Sample() []byte {
	var b strings.Builder
	b.WriteString(sampleIntro)
	for line := range strings.Lines(example) {
		b.WriteString(strings.TrimRight("#     "+line, " \n") + "\n")
	}
	for _, s := range r.Sections {
		b.WriteString("\n[" + s.Name + "]\n")
		sampleOptions(&b, s.Options)
		if s.Auth {
			sampleOptions(&b, r.Authentication)
		}
	}
	return []byte(b.String())
}

// forTests are options that no operator sets.
const forTests = "for tests only"

func sampleOptions(b *strings.Builder, options []Option) {
	for _, o := range options {
		if strings.HasPrefix(o.Doc, forTests) {
			continue
		}
		b.WriteString("\n# " + o.Doc + " (" + o.Kind + ")\n" + strings.TrimRight("#"+o.Key+" = "+o.Default, " ") + "\n")
	}
}
