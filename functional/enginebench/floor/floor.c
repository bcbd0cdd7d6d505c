/* floor: the system calls of one container start and nothing else.
 *
 * It starts N containers after each other the way the engine does it - one write of a record that is synced, the directories of
 * a disk, user and network namespace, control groups with limits, id-mapped overlay that is attached nowhere on the host, a stage
 * instead of the host's mounts, mounts, masks, pivot_root, capabilities, system call filter, execve - from one resident process
 * without console log or error text, and prints the medians in microseconds. Each container runs /bin/sleep and is killed and
 * removed outside of the timed part.
 *
 * floor N WORK ROOTFS FILTER: WORK is an empty directory, ROOTFS a directory with busybox, FILTER the compiled filter as an
 * array of struct sock_filter. Root only; the hybrid layout of control groups or pure v2.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define IDS 65536u
#define FIRST 1000000u
#define CHECK(x) ({ long r_ = (long)(x); if (r_ < 0) fail(#x, __LINE__); r_; })
#define SOFT(x) ((void)!(x))

static void fail(const char *what, int line)
{
	fprintf(stderr, "floor: line %d: %s: %s\n", line, what, strerror(errno));
	_exit(1);
}

static uint64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static const char *work, *rootfs;
static struct sock_fprog filter;
static const char *v1[] = {"cpu", "cpuacct", "memory", "devices", "freezer", "pids", "systemd", NULL};
static int hybrid, stage, record, terminal;

static void put(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0) fail(path, __LINE__);
	if (write(fd, text, strlen(text)) < 0) fail(path, __LINE__);
	close(fd);
}

static void group_path(char *out, const char *controller, int i, const char *file)
{
	if (hybrid) sprintf(out, "/sys/fs/cgroup/%s/gantry-floor-%d/%s", controller, i, file);
	else sprintf(out, "/sys/fs/cgroup/gantry-floor-%d/%s", i, file);
}

/* groups makes the control groups with limits and returns their opened files "tasks", and last a directory to be born in. */
static int groups(int i, int *fds)
{
	char p[256];
	int n = 0;
	if (!hybrid) {
		group_path(p, "", i, "");
		CHECK(mkdir(p, 0755));
		group_path(p, "", i, "memory.max"); put(p, "268435456");
		group_path(p, "", i, "pids.max"); put(p, "512");
		group_path(p, "", i, "cpu.weight"); put(p, "50");
		group_path(p, "", i, "");
		fds[n++] = CHECK(open(p, O_PATH | O_DIRECTORY | O_CLOEXEC));
		return n;
	}
	for (int k = 0; v1[k]; k++) {
		group_path(p, v1[k], i, "");
		CHECK(mkdir(p, 0755));
	}
	group_path(p, "unified", i, "");
	CHECK(mkdir(p, 0755));
	group_path(p, "memory", i, "memory.limit_in_bytes"); put(p, "268435456");
	group_path(p, "memory", i, "memory.memsw.limit_in_bytes");
	if (access(p, F_OK) == 0) put(p, "268435456");
	group_path(p, "cpu", i, "cpu.shares"); put(p, "512");
	group_path(p, "pids", i, "pids.max"); put(p, "512");
	group_path(p, "devices", i, "devices.deny"); put(p, "a");
	static const char *allow[] = {"c 136:* rwm", "c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", NULL};
	group_path(p, "devices", i, "devices.allow");
	int fd = CHECK(open(p, O_WRONLY | O_CLOEXEC));
	for (int a = 0; allow[a]; a++) CHECK(write(fd, allow[a], strlen(allow[a])));
	close(fd);
	for (int k = 0; v1[k]; k++) {
		group_path(p, v1[k], i, "tasks");
		fds[n++] = CHECK(open(p, O_WRONLY | O_CLOEXEC));
	}
	group_path(p, "unified", i, "");
	fds[n++] = CHECK(open(p, O_PATH | O_DIRECTORY | O_CLOEXEC));
	return n;
}

static void ungroup(int i)
{
	char p[256];
	if (!hybrid) { group_path(p, "", i, ""); rmdir(p); return; }
	for (int k = 0; v1[k]; k++) { group_path(p, v1[k], i, ""); rmdir(p); }
	group_path(p, "unified", i, ""); rmdir(p);
}

/* namespaces makes the user and the network namespace. */
static void namespaces(int i, int *user, int *net)
{
	int gate[2], ready[2];
	char p[256], map[64], c;
	CHECK(pipe2(gate, O_CLOEXEC));
	CHECK(pipe2(ready, O_CLOEXEC));
	pid_t pid = CHECK(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
	if (pid == 0) {
		CHECK(unshare(CLONE_NEWUSER | CLONE_NEWNET));
		SOFT(write(ready[1], "r", 1));
		SOFT(read(gate[0], &c, 1));
		_exit(0);
	}
	SOFT(read(ready[0], &c, 1));
	sprintf(map, "0 %u %u\n", FIRST + i * IDS, IDS);
	sprintf(p, "/proc/%d/uid_map", pid); put(p, map);
	sprintf(p, "/proc/%d/gid_map", pid); put(p, map);
	sprintf(p, "/proc/%d/ns/user", pid); *user = CHECK(open(p, O_RDONLY | O_CLOEXEC));
	sprintf(p, "/proc/%d/ns/net", pid); *net = CHECK(open(p, O_RDONLY | O_CLOEXEC));
	SOFT(write(gate[1], "g", 1));
	for (int k = 0; k < 2; k++) { close(gate[k]); close(ready[k]); }
	waitpid(pid, NULL, 0);
}

/* mapped clones a mount with the ids of a user namespace. */
static int mapped(const char *path, int user)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP | MOUNT_ATTR_NODEV, .attr_clr = MOUNT_ATTR_NOSUID, .propagation = MS_PRIVATE, .userns_fd = user};
	int fd = CHECK(syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
	CHECK(syscall(SYS_mount_setattr, fd, "", AT_EMPTY_PATH, &attr, sizeof attr));
	return fd;
}

/* overlay makes the mount of the container's disk over id-mapped layers, attached nowhere. */
static int overlay(int i, int user)
{
	static const char *settings[] = {"source", "floor", "redirect_dir", "nofollow", "metacopy", "off", "index", "off", NULL};
	char p[256];
	sprintf(p, "%s/%d", work, i);
	int disk = mapped(p, user), low = mapped(rootfs, user);
	sprintf(p, "%s/skeleton", work);
	int lowest = mapped(p, user);
	int up = CHECK(openat(disk, "upper", O_PATH | O_DIRECTORY | O_CLOEXEC));
	int wk = CHECK(openat(disk, "work", O_PATH | O_DIRECTORY | O_CLOEXEC));
	int fs = CHECK(syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC));
	CHECK(syscall(SYS_fsconfig, fs, FSCONFIG_SET_FD, "lowerdir+", NULL, low));
	CHECK(syscall(SYS_fsconfig, fs, FSCONFIG_SET_FD, "lowerdir+", NULL, lowest));
	CHECK(syscall(SYS_fsconfig, fs, FSCONFIG_SET_FD, "upperdir", NULL, up));
	CHECK(syscall(SYS_fsconfig, fs, FSCONFIG_SET_FD, "workdir", NULL, wk));
	for (int k = 0; settings[k]; k += 2) CHECK(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, settings[k], settings[k + 1], 0));
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct sets[2];
	CHECK(syscall(SYS_capget, &head, sets));
	setfsgid(FIRST + i * IDS);
	setfsuid(FIRST + i * IDS); /* drops capabilities */
	CHECK(syscall(SYS_capset, &head, sets));
	CHECK(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	setfsuid(0);
	setfsgid(0);
	CHECK(syscall(SYS_capset, &head, sets));
	int mnt = CHECK(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV));
	close(fs); close(up); close(wk); close(disk); close(low); close(lowest);
	return mnt;
}

#define HIDE (MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC)

static int filesystem(const char *kind, int attrs, const char *const *options)
{
	int fs = CHECK(syscall(SYS_fsopen, kind, FSOPEN_CLOEXEC));
	for (int k = 0; options && options[k]; k += 2) CHECK(syscall(SYS_fsconfig, fs, FSCONFIG_SET_STRING, options[k], options[k + 1], 0));
	CHECK(syscall(SYS_fsconfig, fs, FSCONFIG_CMD_CREATE, NULL, NULL, 0));
	int mnt = CHECK(syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attrs));
	close(fs);
	return mnt;
}

static int below(int dir, const char *path, int flags)
{
	struct open_how how = {.flags = flags | O_CLOEXEC, .resolve = RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS};
	return syscall(SYS_openat2, dir, path, &how, sizeof how);
}

static void attach(int mnt, int root, const char *name)
{
	SOFT(mkdirat(root, name, 0755));
	int fd = CHECK(below(root, name, O_PATH | O_DIRECTORY));
	CHECK(syscall(SYS_move_mount, mnt, "", fd, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
	close(fd);
}

static void bind_file(int dir, const char *path, int dev, const char *name)
{
	CHECK(mknodat(dev, name, S_IFREG | 0666, 0));
	int fd = CHECK(syscall(SYS_open_tree, dir, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW));
	CHECK(syscall(SYS_move_mount, fd, "", dev, name, MOVE_MOUNT_F_EMPTY_PATH));
	close(fd);
}

static const char *shown[] = {"cpu", "cpuacct", "memory", "pids"};

/* clone_groups clones what programs size themselves by, the container's own part of hierarchies. */
static void clone_groups(int i, int *clones)
{
	struct mount_attr attr = {.attr_set = HIDE | MOUNT_ATTR_RDONLY, .propagation = MS_PRIVATE};
	char p[256];
	for (int k = 0; hybrid && k < 4; k++) {
		group_path(p, shown[k], i, "");
		clones[k] = CHECK(syscall(SYS_open_tree, AT_FDCWD, p, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
		CHECK(syscall(SYS_mount_setattr, clones[k], "", AT_EMPTY_PATH, &attr, sizeof attr));
	}
}

/* cgroups mounts them, in a directory of the stage. */
static void cgroups(int sys, const int *clones)
{
	int at = CHECK(below(sys, "fs/cgroup", O_PATH)), mnt;
	if (hybrid) {
		struct mount_attr attr = {.attr_set = HIDE | MOUNT_ATTR_RDONLY};
		mnt = CHECK(syscall(SYS_open_tree, AT_FDCWD, "/cgroup", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
		CHECK(syscall(SYS_mount_setattr, mnt, "", AT_EMPTY_PATH, &attr, sizeof attr));
	} else mnt = filesystem("cgroup2", HIDE | MOUNT_ATTR_RDONLY, NULL);
	CHECK(syscall(SYS_move_mount, mnt, "", at, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
	close(at);
	for (int k = 0; hybrid && k < 4; k++) {
		CHECK(syscall(SYS_move_mount, clones[k], "", mnt, shown[k], MOVE_MOUNT_F_EMPTY_PATH));
		close(clones[k]);
	}
}

static void mounts(int root, int status, const int *clones)
{
	int proc = filesystem("proc", HIDE, NULL);
	attach(proc, root, "proc");
	int sys = filesystem("sysfs", HIDE | MOUNT_ATTR_RDONLY, NULL);
	attach(sys, root, "sys");
	cgroups(sys, clones);
	static const char *dev_options[] = {"mode", "755", "size", "65536k", NULL};
	int dev = filesystem("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, dev_options);
	attach(dev, root, "dev");
	static const char *nodes[] = {"null", "zero", "full", "random", "urandom", "tty", NULL};
	for (int k = 0; nodes[k]; k++) {
		char p[32];
		sprintf(p, "/dev/%s", nodes[k]);
		bind_file(AT_FDCWD, p, dev, nodes[k]);
	}
	static const char *links[] = {"/proc/self/fd", "fd", "/proc/self/fd/0", "stdin", "/proc/self/fd/1", "stdout", "/proc/self/fd/2", "stderr", "pts/ptmx", "ptmx", NULL};
	for (int k = 0; links[k]; k += 2) CHECK(symlinkat(links[k], dev, links[k + 1]));
	static const char *pts_options[] = {"ptmxmode", "0666", "mode", "620", "gid", "5", "max", "1024", NULL};
	int pts = filesystem("devpts", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, pts_options);
	attach(pts, dev, "pts");
	struct mount_attr hide = {.attr_set = HIDE};
	CHECK(mkdirat(dev, "shm", 0755));
	CHECK(fchmodat(dev, "shm", 01777, 0));
	int shm = CHECK(syscall(SYS_open_tree, dev, "shm", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
	CHECK(syscall(SYS_mount_setattr, shm, "", AT_EMPTY_PATH, &hide, sizeof hide));
	CHECK(syscall(SYS_move_mount, shm, "", dev, "shm", MOVE_MOUNT_F_EMPTY_PATH));
	int queue = filesystem("mqueue", HIDE, NULL);
	attach(queue, dev, "mqueue");
	int master = CHECK(openat(pts, "ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)), unlocked = 0;
	CHECK(ioctl(master, TIOCSPTLCK, &unlocked));
	int slave = CHECK(ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
	struct winsize size = {24, 80, 0, 0};
	CHECK(ioctl(slave, TIOCSWINSZ, &size));
	CHECK(fchown(slave, 0, -1));
	struct iovec body = {"c", 1};
	union { struct cmsghdr head; char room[CMSG_SPACE(sizeof(int))]; } rights = {.head = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
	memcpy(CMSG_DATA(&rights.head), &master, sizeof master);
	struct msghdr message = {.msg_iov = &body, .msg_iovlen = 1, .msg_control = rights.room, .msg_controllen = sizeof rights.room};
	CHECK(sendmsg(status, &message, 0));
	close(master);
	bind_file(pts, "0", dev, "console");
	/* sysctls */
	int fd = CHECK(below(proc, "sys/net/ipv4/ping_group_range", O_WRONLY)); CHECK(write(fd, "0 65535", 7)); close(fd);
	fd = CHECK(below(proc, "sys/net/ipv4/ip_unprivileged_port_start", O_WRONLY)); CHECK(write(fd, "0", 1)); close(fd);
	CHECK(sethostname("floor", 5));
	/* masks */
	static const char *masked[] = {"proc/acpi", "proc/asound", "proc/interrupts", "proc/kcore", "proc/keys", "proc/latency_stats", "proc/sched_debug", "proc/scsi", "proc/timer_list", "proc/timer_stats", "sys/firmware", "sys/devices/virtual/powercap", NULL};
	for (int k = 0; masked[k]; k++) {
		int target = below(root, masked[k], O_PATH | O_DIRECTORY), clone;
		if (target >= 0) clone = CHECK(syscall(SYS_open_tree, AT_FDCWD, "/mask", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
		else {
			target = below(root, masked[k], O_PATH);
			if (target < 0) continue;
			clone = CHECK(syscall(SYS_open_tree, AT_FDCWD, "/dev/null", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW));
		}
		CHECK(syscall(SYS_move_mount, clone, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
		close(clone); close(target);
	}
	static const char *readonly[] = {"proc/bus", "proc/fs", "proc/irq", "proc/sys", "proc/sysrq-trigger", NULL};
	struct mount_attr ro = {.attr_set = MOUNT_ATTR_RDONLY};
	for (int k = 0; readonly[k]; k++) {
		int target = below(root, readonly[k], O_PATH);
		if (target < 0) continue;
		int clone = CHECK(syscall(SYS_open_tree, target, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE));
		CHECK(syscall(SYS_mount_setattr, clone, "", AT_EMPTY_PATH | AT_RECURSIVE, &ro, sizeof ro));
		CHECK(syscall(SYS_move_mount, clone, "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
		close(clone); close(target);
	}
	CHECK(fchdir(root));
	CHECK(syscall(SYS_pivot_root, ".", "."));
	CHECK(umount2(".", MNT_DETACH));
	CHECK(fchdir(root));
	CHECK(ioctl(slave, TIOCSCTTY, 0));
	for (int k = 0; k < 3; k++) CHECK(dup3(slave, k, 0));
}

/* set_stage makes a mount namespace with next to nothing in it, to copy instead of the host's. */
static void set_stage(void)
{
	int gate[2], ready[2];
	char p[64], c;
	CHECK(pipe2(gate, O_CLOEXEC));
	CHECK(pipe2(ready, O_CLOEXEC));
	pid_t pid = CHECK(fork());
	if (pid == 0) {
		static const char *dirs[] = {"dev", "proc", "sys", "mask", "cgroup", NULL}, *options[] = {"mode", "555", "size", "4k", NULL};
		static const struct { const char *name; int major, minor; } nodes[] = {{"null", 1, 3}, {"zero", 1, 5}, {"full", 1, 7}, {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};
		CHECK(unshare(CLONE_NEWNS));
		CHECK(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0));
		int root = filesystem("tmpfs", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, options);
		CHECK(syscall(SYS_move_mount, root, "", AT_FDCWD, "/", MOVE_MOUNT_F_EMPTY_PATH));
		umask(0);
		for (int k = 0; dirs[k]; k++) CHECK(mkdirat(root, dirs[k], 0555));
		for (int k = 0; k < 4; k++) {
			sprintf(p, "cgroup/%s", shown[k]);
			CHECK(mkdirat(root, p, 0755));
		}
		for (int k = 0; k < 6; k++) {
			sprintf(p, "dev/%s", nodes[k].name);
			CHECK(mknodat(root, p, S_IFCHR | 0666, makedev(nodes[k].major, nodes[k].minor)));
		}
		struct mount_attr ro = {.attr_set = MOUNT_ATTR_RDONLY}, hide = {.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NODEV};
		for (int k = 0; k < 3; k++) {
			sprintf(p, "/%s", dirs[k]);
			int mnt = CHECK(syscall(SYS_open_tree, k ? AT_FDCWD : root, k ? p : "dev", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
			if (k == 0) CHECK(syscall(SYS_mount_setattr, mnt, "", AT_EMPTY_PATH, &ro, sizeof ro));
			CHECK(syscall(SYS_move_mount, mnt, "", root, dirs[k], MOVE_MOUNT_F_EMPTY_PATH));
		}
		CHECK(syscall(SYS_mount_setattr, root, "", AT_EMPTY_PATH, &hide, sizeof hide));
		CHECK(fchdir(root));
		CHECK(syscall(SYS_pivot_root, ".", "."));
		CHECK(umount2(".", MNT_DETACH));
		SOFT(write(ready[1], "r", 1));
		SOFT(read(gate[0], &c, 1));
		_exit(0);
	}
	close(ready[1]);
	if (read(ready[0], &c, 1) != 1) fail("stage", __LINE__);
	sprintf(p, "/proc/%d/ns/mnt", pid);
	stage = CHECK(open(p, O_RDONLY | O_CLOEXEC));
	SOFT(write(gate[1], "g", 1));
	waitpid(pid, NULL, 0);
	close(gate[0]); close(gate[1]); close(ready[0]);
}

static void child(int i, int user, int net, int root, int status, const int *tasks, int n)
{
	static const struct { int what; struct rlimit value; } limits[] = {
		{RLIMIT_NOFILE, {1024, 4096}}, {RLIMIT_MEMLOCK, {8 << 20, 8 << 20}}, {RLIMIT_MSGQUEUE, {800 << 10, 800 << 10}}, {RLIMIT_CORE, {0, 0}}};
	for (int k = 0; k < 4; k++) CHECK(prlimit(0, limits[k].what, &limits[k].value, NULL));
	put("/proc/self/oom_score_adj", "0");
	for (int k = 0; k < n; k++) { CHECK(write(tasks[k], "0", 1)); close(tasks[k]); }
	CHECK(prctl(PR_SET_DUMPABLE, 0));
	int clones[4];
	clone_groups(i, clones);
	CHECK(setns(stage, CLONE_NEWNS));
	CHECK(setns(net, CLONE_NEWNET));
	CHECK(setns(user, CLONE_NEWUSER));
	CHECK(unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP | CLONE_NEWPID | CLONE_NEWTIME));
	CHECK(syscall(SYS_setgroups, 0, 0));
	CHECK(syscall(SYS_setresgid, 0, 0, 0));
	CHECK(syscall(SYS_setresuid, 0, 0, 0));
	pid_t pid = CHECK(syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0));
	if (pid) { SOFT(write(status, &pid, sizeof pid)); _exit(0); }
	CHECK(setsid());
	SOFT(syscall(SYS_keyctl, 1, 0));
	CHECK(syscall(SYS_move_mount, root, "", AT_FDCWD, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
	mounts(root, status, clones);
	CHECK(syscall(SYS_close_range, status + 1, ~0u, 0));
	const uint64_t keep = 0x00000000a0c425fbull; /* the default profile's capabilities */
	CHECK(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0));
	for (int c = 0; c < 64; c++) if (!(keep >> c & 1)) prctl(PR_CAPBSET_DROP, c, 0, 0, 0);
	CHECK(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter));
	CHECK(syscall(SYS_setgroups, 0, 0));
	struct __user_cap_header_struct head = {_LINUX_CAPABILITY_VERSION_3, 0};
	struct __user_cap_data_struct sets[2] = {{keep, keep, 0}, {keep >> 32, keep >> 32, 0}};
	CHECK(syscall(SYS_capset, &head, sets));
	struct { void *h; unsigned long f; void *r; uint64_t m; } action = {0};
	for (int sig = 1; sig <= 64; sig++) if (sig != SIGKILL && sig != SIGSTOP) syscall(SYS_rt_sigaction, sig, &action, 0, 8);
	CHECK(execve("/bin/busybox", (char *[]){"sleep", "1000000", NULL}, (char *[]){"PATH=/bin", NULL}));
}

/* start returns the pid of the container's first process, which runs. */
static pid_t start(int i)
{
	char p[256], q[256];
	static const char *dirs[] = {"", "/upper", "/work", NULL};
	static const char page[4096];
	CHECK(pwrite(record, page, sizeof page, (off_t)i * sizeof page));
	CHECK(fdatasync(record));
	for (int k = 0; dirs[k]; k++) {
		sprintf(p, "%s/.%d%s", work, i, dirs[k]);
		CHECK(mkdir(p, 0755));
	}
	sprintf(p, "%s/.%d", work, i);
	sprintf(q, "%s/%d", work, i);
	CHECK(rename(p, q));
	int user, net, groups_of[16], n = groups(i, groups_of), status[2];
	namespaces(i, &user, &net);
	int root = overlay(i, user);
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, status));
	/* the engine's child is a program of its own (its memory is not the engine's), so this one is forked, not vforked */
	struct clone_args how = {.flags = CLONE_INTO_CGROUP, .exit_signal = SIGCHLD, .cgroup = groups_of[n - 1]};
	pid_t forked = CHECK(syscall(SYS_clone3, &how, sizeof how));
	if (forked == 0) child(i, user, net, root, status[1], groups_of, n - 1);
	close(status[1]);
	pid_t pid = 0;
	for (;;) { /* of two processes, in any order: the number and the console; closed by the execve */
		char body[sizeof pid], room[CMSG_SPACE(sizeof(int))];
		struct iovec iov = {body, sizeof body};
		struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
		ssize_t got = recvmsg(status[0], &message, MSG_CMSG_CLOEXEC);
		if (got <= 0) break;
		if (got == sizeof pid) memcpy(&pid, body, sizeof pid);
		else memcpy(&terminal, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof terminal);
	}
	if (pid == 0) fail("read pid", __LINE__);
	int pidfd = CHECK(syscall(SYS_pidfd_open, pid, 0));
	close(status[0]);
	waitpid(forked, NULL, 0);
	for (int k = 0; k < n; k++) close(groups_of[k]);
	close(user); close(net); close(root); close(pidfd);
	return pid;
}

static void stop(int i, pid_t pid)
{
	char p[256];
	kill(pid, SIGKILL);
	int st;
	waitpid(pid, &st, 0);
	if (!WIFSIGNALED(st)) { fprintf(stderr, "floor: container %d ended by itself\n", i); exit(1); }
	close(terminal);
	ungroup(i);
	sprintf(p, "rm -rf '%s/%d'", work, i);
	SOFT(system(p));
}

int main(int argc, char **argv)
{
	if (argc != 5) { fprintf(stderr, "usage: floor N WORK ROOTFS FILTER\n"); return 2; }
	int n = atoi(argv[1]);
	work = argv[2];
	rootfs = argv[3];
	static struct sock_filter code[4096];
	int fd = CHECK(open(argv[4], O_RDONLY | O_CLOEXEC));
	filter.len = CHECK(read(fd, code, sizeof code)) / sizeof *code;
	filter.filter = code;
	close(fd);
	hybrid = access("/sys/fs/cgroup/cgroup.procs", F_OK) != 0;
	char p[512];
	sprintf(p, "%s/record", work);
	record = CHECK(open(p, O_RDWR | O_CREAT | O_CLOEXEC, 0600));
	CHECK(posix_fallocate(record, 0, n * 4096l));
	static const char *skeleton[] = {"", "/dev", "/proc", "/sys", NULL};
	for (int k = 0; skeleton[k]; k++) { sprintf(p, "%s/skeleton%s", work, skeleton[k]); CHECK(mkdir(p, 0755)); }
	set_stage();
	uint64_t *took = calloc(n, sizeof *took);
	for (int i = 0; i < n; i++) {
		uint64_t began = now();
		pid_t pid = start(i);
		took[i] = now() - began;
		stop(i, pid);
	}
	sprintf(p, "rm -rf '%s/skeleton' '%s/record'", work, work);
	SOFT(system(p));
	for (int i = 0; i < n; i++) printf("%llu\n", (unsigned long long)took[i] / 1000);
	return 0;
}
