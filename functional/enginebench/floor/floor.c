/* floor: the system calls of one container start and nothing else.
 *
 * It starts N containers after each other the way the engine does it - pinned user and network namespaces, control groups with
 * limits, id-mapped overlay, mounts, masks, pivot_root, capabilities, system call filter, execve - from one resident process
 * without any record, console log or error text, and prints the medians in microseconds. Each container runs /bin/sleep and is
 * killed and removed outside of the timed part.
 *
 * floor N WORK ROOTFS FILTER: WORK is an empty directory, ROOTFS a directory with busybox, FILTER the compiled filter as an
 * array of struct sock_filter. Root only; the hybrid layout of control groups or pure v2.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
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
static const char *v1[] = {"memory", "cpu", "pids", "devices", "freezer", "cpuset", NULL};
static int hybrid;

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

/* groups makes the control groups with limits and returns their opened cgroup.procs files. */
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
		group_path(p, "", i, "cgroup.procs");
		fds[n++] = CHECK(open(p, O_WRONLY | O_CLOEXEC));
		return n;
	}
	for (int k = 0; v1[k]; k++) {
		group_path(p, v1[k], i, "");
		CHECK(mkdir(p, 0755));
		if (!strcmp(v1[k], "memory")) { group_path(p, v1[k], i, "memory.limit_in_bytes"); put(p, "268435456"); }
		if (!strcmp(v1[k], "cpu")) { group_path(p, v1[k], i, "cpu.shares"); put(p, "512"); }
		if (!strcmp(v1[k], "pids")) { group_path(p, v1[k], i, "pids.max"); put(p, "512"); }
		if (!strcmp(v1[k], "cpuset")) {
			group_path(p, v1[k], i, "cpuset.cpus"); put(p, "0-1");
			group_path(p, v1[k], i, "cpuset.mems"); put(p, "0");
		}
		if (!strcmp(v1[k], "devices")) {
			static const char *allow[] = {"c 1:3 rwm", "c 1:5 rwm", "c 1:7 rwm", "c 1:8 rwm", "c 1:9 rwm", "c 5:0 rwm", "c 5:1 rwm", "c 5:2 rwm", "c 136:* rwm", NULL};
			group_path(p, v1[k], i, "devices.deny"); put(p, "a");
			group_path(p, v1[k], i, "devices.allow");
			for (int a = 0; allow[a]; a++) put(p, allow[a]);
		}
		group_path(p, v1[k], i, "cgroup.procs");
		fds[n++] = CHECK(open(p, O_WRONLY | O_CLOEXEC));
	}
	group_path(p, "unified", i, "");
	CHECK(mkdir(p, 0755));
	group_path(p, "unified", i, "cgroup.procs");
	fds[n++] = CHECK(open(p, O_WRONLY | O_CLOEXEC));
	return n;
}

static void ungroup(int i)
{
	char p[256];
	if (!hybrid) { group_path(p, "", i, ""); rmdir(p); return; }
	for (int k = 0; v1[k]; k++) { group_path(p, v1[k], i, ""); rmdir(p); }
	group_path(p, "unified", i, ""); rmdir(p);
}

/* namespaces makes and pins the user and the network namespace. */
static void namespaces(int i)
{
	int gate[2], ready[2];
	char p[256], q[256], map[64], c;
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
	for (int k = 0; k < 2; k++) {
		sprintf(p, "/proc/%d/ns/%s", pid, k ? "net" : "user");
		sprintf(q, "%s/%d/%s", work, i, k ? "net" : "user");
		close(CHECK(open(q, O_CREAT | O_EXCL | O_RDONLY | O_CLOEXEC, 0600)));
		CHECK(mount(p, q, "", MS_BIND, ""));
	}
	SOFT(write(gate[1], "g", 1));
	for (int k = 0; k < 2; k++) { close(gate[k]); close(ready[k]); }
	waitpid(pid, NULL, 0);
}

/* overlay mounts the container's disk over an id-mapped layer. */
static void overlay(int i)
{
	char p[256];
	sprintf(p, "%s/%d/user", work, i);
	int user = CHECK(open(p, O_RDONLY | O_CLOEXEC));
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_IDMAP, .userns_fd = user};
	int low = CHECK(syscall(SYS_open_tree, AT_FDCWD, rootfs, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
	CHECK(syscall(SYS_mount_setattr, low, "", AT_EMPTY_PATH, &attr, sizeof attr));
	sprintf(p, "%s/%d/disk", work, i);
	int disk = CHECK(syscall(SYS_open_tree, AT_FDCWD, p, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
	CHECK(syscall(SYS_mount_setattr, disk, "", AT_EMPTY_PATH, &attr, sizeof attr));
	close(user);
	int up = CHECK(openat(disk, "upper", O_PATH | O_DIRECTORY | O_CLOEXEC));
	int wk = CHECK(openat(disk, "work", O_PATH | O_DIRECTORY | O_CLOEXEC));
	int fs = CHECK(syscall(SYS_fsopen, "overlay", FSOPEN_CLOEXEC));
	CHECK(syscall(SYS_fsconfig, fs, FSCONFIG_SET_FD, "lowerdir+", NULL, low));
	CHECK(syscall(SYS_fsconfig, fs, FSCONFIG_SET_FD, "upperdir", NULL, up));
	CHECK(syscall(SYS_fsconfig, fs, FSCONFIG_SET_FD, "workdir", NULL, wk));
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
	sprintf(p, "%s/%d/root", work, i);
	CHECK(syscall(SYS_move_mount, mnt, "", AT_FDCWD, p, MOVE_MOUNT_F_EMPTY_PATH));
	close(mnt); close(fs); close(up); close(wk); close(disk); close(low);
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

static void mounts(int root)
{
	int proc = filesystem("proc", HIDE, NULL);
	attach(proc, root, "proc");
	int sys = filesystem("sysfs", HIDE | MOUNT_ATTR_RDONLY, NULL);
	attach(sys, root, "sys");
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
	static const char *shm_options[] = {"mode", "1777", "size", "65536k", NULL};
	int pts = filesystem("devpts", MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC, pts_options);
	attach(pts, dev, "pts");
	int shm = filesystem("tmpfs", HIDE, shm_options);
	attach(shm, dev, "shm");
	int queue = filesystem("mqueue", HIDE, NULL);
	attach(queue, dev, "mqueue");
	int master = CHECK(openat(pts, "ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC)), unlocked = 0;
	CHECK(ioctl(master, TIOCSPTLCK, &unlocked));
	int slave = CHECK(ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC));
	CHECK(fchown(slave, 0, 5));
	bind_file(pts, "0", dev, "console");
	/* sysctls */
	int fd = CHECK(below(proc, "sys/net/ipv4/ping_group_range", O_WRONLY)); CHECK(write(fd, "0 65535", 7)); close(fd);
	fd = CHECK(below(proc, "sys/net/ipv4/ip_unprivileged_port_start", O_WRONLY)); CHECK(write(fd, "0", 1)); close(fd);
	CHECK(sethostname("floor", 5));
	/* masks */
	static const char *mask_options[] = {"mode", "555", "size", "4k", NULL};
	int empty = filesystem("tmpfs", HIDE | MOUNT_ATTR_RDONLY, mask_options);
	CHECK(syscall(SYS_move_mount, empty, "", AT_FDCWD, "/proc", MOVE_MOUNT_F_EMPTY_PATH));
	static const char *masked[] = {"proc/acpi", "proc/asound", "proc/interrupts", "proc/kcore", "proc/keys", "proc/latency_stats", "proc/sched_debug", "proc/scsi", "proc/timer_list", "proc/timer_stats", "sys/firmware", "sys/devices/virtual/powercap", NULL};
	for (int k = 0; masked[k]; k++) {
		int target = below(root, masked[k], O_PATH | O_DIRECTORY), clone;
		if (target >= 0) clone = CHECK(syscall(SYS_open_tree, empty, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH));
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

static void child(int user, int net, int root_dir, int status, const int *procs, int n)
{
	struct rlimit core = {0, 0};
	CHECK(prlimit(0, RLIMIT_CORE, &core, NULL));
	put("/proc/self/oom_score_adj", "0");
	for (int k = 0; k < n; k++) { CHECK(write(procs[k], "0", 1)); close(procs[k]); }
	CHECK(fchdir(root_dir));
	CHECK(setns(net, CLONE_NEWNET));
	CHECK(setns(user, CLONE_NEWUSER));
	CHECK(unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP | CLONE_NEWPID));
	CHECK(syscall(SYS_setgroups, 0, 0));
	CHECK(syscall(SYS_setresgid, 0, 0, 0));
	CHECK(syscall(SYS_setresuid, 0, 0, 0));
	pid_t pid = CHECK(syscall(SYS_clone, CLONE_PARENT | SIGCHLD, 0, 0, 0, 0));
	if (pid) { SOFT(write(status, &pid, sizeof pid)); _exit(0); }
	CHECK(setsid());
	SOFT(syscall(SYS_keyctl, 1, 0));
	CHECK(mount(0, "/", 0, MS_REC | MS_PRIVATE, 0));
	int root = CHECK(syscall(SYS_open_tree, AT_FDCWD, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE));
	CHECK(syscall(SYS_move_mount, root, "", AT_FDCWD, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH));
	mounts(root);
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
	char p[256];
	static const char *dirs[] = {"", "/disk", "/disk/upper", "/disk/work", "/root", NULL};
	for (int k = 0; dirs[k]; k++) {
		sprintf(p, "%s/%d%s", work, i, dirs[k]);
		CHECK(mkdir(p, 0755));
	}
	namespaces(i);
	overlay(i);
	int procs[16], n = groups(i, procs), status[2];
	sprintf(p, "%s/%d/user", work, i);
	int user = CHECK(open(p, O_RDONLY | O_CLOEXEC));
	sprintf(p, "%s/%d/net", work, i);
	int net = CHECK(open(p, O_RDONLY | O_CLOEXEC));
	sprintf(p, "%s/%d/root", work, i);
	int root = CHECK(open(p, O_PATH | O_DIRECTORY | O_CLOEXEC));
	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, status));
	/* the engine's child is a program of its own (its memory is not the engine's), so this one is forked, not vforked */
	pid_t forked = CHECK(syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0));
	if (forked == 0) child(user, net, root, status[1], procs, n);
	close(status[1]);
	pid_t pid = 0;
	if (read(status[0], &pid, sizeof pid) != sizeof pid) fail("read pid", __LINE__);
	char c;
	SOFT(read(status[0], &c, 1)); /* closed by the execve */
	close(status[0]);
	waitpid(forked, NULL, 0);
	for (int k = 0; k < n; k++) close(procs[k]);
	close(user); close(net); close(root);
	return pid;
}

static void stop(int i, pid_t pid)
{
	char p[256];
	kill(pid, SIGKILL);
	int st;
	waitpid(pid, &st, 0);
	if (!WIFSIGNALED(st)) { fprintf(stderr, "floor: container %d ended by itself\n", i); exit(1); }
	static const char *mounted[] = {"root", "user", "net", NULL};
	for (int k = 0; mounted[k]; k++) { sprintf(p, "%s/%d/%s", work, i, mounted[k]); umount2(p, MNT_DETACH); }
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
	uint64_t *took = calloc(n, sizeof *took);
	for (int i = 0; i < n; i++) {
		uint64_t began = now();
		pid_t pid = start(i);
		took[i] = now() - began;
		stop(i, pid);
	}
	for (int i = 0; i < n; i++) printf("%llu\n", (unsigned long long)took[i] / 1000);
	return 0;
}
