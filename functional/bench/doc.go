// Command bench boots and deletes instances on one control plane, once for
// each compute service that it compares, and prints what that costs as a table.
//
// functional/controlplane/bench-boot (make bench-boot) brings the control
// plane up and runs it. It uses public surfaces only: the services' REST
// interfaces, the broker's firehose, /proc, Neutron's log and the debug log of
// gantry. docs/performance.md says what each number means.
package main
