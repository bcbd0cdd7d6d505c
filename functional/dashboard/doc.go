// Package dashboard drives Debian's Horizon, in headless Chromium, against a gantry
// cloud: each page that a tenant and an operator see, with what has to stand on it.
// No page may show an error, no request of the browser may fail, and neither may a
// request of Horizon to the cloud but for those that the walks mean. Pictures of all pages are left in bin/screenshots.
//
// The tests carry the build tag functional, need root, GANTRY_BINARY and the
// packages openstack-dashboard, uwsgi-plugin-python3 and chromium-headless-shell
// ("make deps"). They touch nothing of the system: Horizon runs from a directory of
// its own, on a port of the loopback.
package dashboard
