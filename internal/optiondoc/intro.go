package optiondoc

// intro is the part of the document that is written by hand.
const intro = `# Configuration

Made from ` + "`config/config.go`" + ` by ` + "`go test ./internal/optiondoc -update`" + `; edit the options there and this text in
` + "`internal/optiondoc/intro.go`" + `. ` + "`gantry config --config-file FILE`" + ` prints the effective values of a host with the same
descriptions, without passwords.

## Where values come from

Later ones win:

1. the default;
2. each ` + "`--config-file FILE`" + `, in the order of the command line. No file is read that is not named;
3. the environment: ` + "`GANTRY_SECTION_KEY`" + `, in capitals (` + "`GANTRY_DEFAULT_HOST`, `GANTRY_GANTRY_STORE_PATH`" + `);
4. ` + "`--set SECTION.KEY=VALUE`" + `, any number of times; ` + "`--debug`" + ` is ` + "`--set DEFAULT.debug=true`" + `.

The format is oslo.config's: sections, ` + "`key = value`" + `, ` + "`#`" + ` at the start of a line, continuation lines that begin with blanks,
` + "`$option`" + ` and ` + "`${section.option}`" + ` for the value of another option, ` + "`$$`" + ` for a dollar sign. Names are Nova's, oslo.messaging's
and keystoneauth's, with their units and defaults, except where a default here differs because a container host needs another.
Names of sections and keys are compared without regard to case.

Kinds: *seconds* are a number, fractions allowed. *boolean* is true, false, yes, no, on, off, 1 or 0. A *list* is separated by
commas. ` + "`" + `key =` + "`" + ` with nothing behind it is an empty text, zero, false or an empty list, not the default.

## What is refused

The service does not start, and names file, section, key and what was expected, when

- a value is not of its kind, ` + "`my_ip`" + ` is no address, ` + "`state_path`" + ` is not absolute, or ` + "`transport_url`" + ` cannot be read;
- ` + "`transport_url`" + ` is missing, or neither a section nor the one that it inherits from has an ` + "`auth_url`" + `
  (or ` + "`endpoint_override`" + `);
- ` + "`[gantry]`" + ` has a key that is not listed here;
- ` + "`--set`" + ` names an option that is not listed here.

Unknown keys in other sections belong to nova-compute or to others and are passed over, so the ` + "`nova.conf`" + ` of the host can be
given as it is.

## Credentials

` + "`[neutron]` and `[placement]`" + ` without an ` + "`auth_url`" + ` use ` + "`[keystone_authtoken]`" + `. ` + "`[glance]`" + ` without one uses ` + "`[service_user]`" + `,
else ` + "`[keystone_authtoken]`" + `: Nova reads images with the user's token and mostly has no credentials there. Region, interfaces,
time limit and ` + "`endpoint_override`" + ` remain those of the section itself.

## Options that are read and have no effect yet

` + "`[gantry] default_command`" + `: an image without init and shell is refused. ` + "`[glance] api_servers`" + `: only the first one is used.
`
