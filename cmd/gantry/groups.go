package main

import (
	"slices"

	"github.com/spf13/cobra"
)

// group is a part of the help, and a manual page.
type group struct {
	id, title string
	verbs     []string
	// page, section and about are of the manual page, text its description.
	page, section, about, text string
}

func groups() []group {
	return []group{
		{
			id: "services", title: "Services:", verbs: []string{"compute", "cloud", "engine"},
			page: "gantry-services", section: "8", about: "run the services of gantry",
			text: "Each of these is a process in the foreground that logs JSON lines to standard error and ends at SIGTERM. Containers outlive it: " +
				"it may be stopped, killed and upgraded while they run, and adopts them when it starts. " +
				"Units of systemd run them as gantry-compute.service and gantry-cloud.service.\n\n" +
				"gantry compute ends with status 78 when its configuration cannot be used, and names file, section and key.",
		},
		{
			id: "containers", title: "Containers:", verbs: []string{
				"run", "ps", "start", "stop", "kill", "rm", "wait", "pause", "resume", "exec", "attach", "logs", "top", "stats", "events",
				"cp", "diff", "export", "update", "checkpoint", "restore",
			},
			page: "gantry-containers", section: "1", about: "look at containers and work with them",
			text: "These talk to a running service over the socket in its store. Instances that belong to an OpenStack can be looked at; " +
				"what changes them is refused without --force, since OpenStack would not know of it.\n\n" +
				"A command that runs another one in a container takes its status.",
		},
		{
			id: "images", title: "Images:", verbs: []string{"images", "image", "import", "history", "commit"},
			page: "gantry-images", section: "1", about: "bring images here, and make them",
			text: "These talk to a running service over the socket in its store.",
		},
		{
			id: "host", title: "The host:", verbs: []string{"config", "doctor", "runtime", "version"},
			page: "gantry-admin", section: "8", about: "check and examine a host that runs gantry",
			text: "These need no service. gantry runtime has a page of its own, gantry-runtime(8).",
		},
	}
}

// arrange puts the verbs of the root into their groups.
func arrange(root *cobra.Command) {
	all := groups()
	for _, g := range all {
		root.AddGroup(&cobra.Group{ID: g.id, Title: g.title})
	}
	for _, c := range root.Commands() {
		if i := slices.IndexFunc(all, func(g group) bool { return slices.Contains(g.verbs, c.Name()) }); i >= 0 {
			c.GroupID = all[i].id
		}
	}
}
