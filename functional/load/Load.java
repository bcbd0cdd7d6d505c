import com.sun.management.OperatingSystemMXBean;
import java.lang.management.ManagementFactory;
import java.security.MessageDigest;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;

/** Looks at what the JVM was given, keeps it busy with garbage and more threads than processors, and fills its heap. */
public class Load {
	static final long MIB = 1 << 20;

	static void is(String what, long got, long want) {
		if (got != want) {
			System.out.println("wrong: " + what + " is " + got + ", not " + want);
			System.exit(1);
		}
	}

	public static void main(String[] args) throws Exception {
		var system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
		is("processors", Runtime.getRuntime().availableProcessors(), 1);
		is("MiB of memory", system.getTotalMemorySize() / MIB, 512);
		long heap = Runtime.getRuntime().maxMemory() / MIB;
		if (heap < 100 || heap > 128) { // a quarter of the memory, without what the collector keeps free
			is("MiB of heap", heap, 128);
		}

		long end = System.nanoTime() + 10_000_000_000L;
		List<Future<Long>> all = new ArrayList<>();
		var pool = Executors.newFixedThreadPool(16);
		for (int i = 0; i < 16; i++) {
			all.add(pool.submit(() -> {
				long n = 0;
				while (System.nanoTime() < end) {
					var digest = MessageDigest.getInstance("SHA-256").digest(new byte[100_000]);
					if (!HexFormat.of().formatHex(digest).startsWith("9192c25b")) { // as sha256sum says
						throw new IllegalStateException("a digest is " + HexFormat.of().formatHex(digest));
					}
					n++;
				}
				return n;
			}));
		}
		pool.shutdown();
		long n = 0;
		for (var f : all) {
			n += f.get();
		}
		long collections = 0;
		for (var gc : ManagementFactory.getGarbageCollectorMXBeans()) {
			collections += gc.getCollectionCount();
		}

		long filled = 0;
		try {
			for (List<byte[]> kept = new ArrayList<>();; filled++) {
				kept.add(new byte[(int) MIB]);
			}
		} catch (OutOfMemoryError e) { // the JVM's own, well within the instance's
			System.out.println("result: 16 threads hash garbage for 10 s, then fill the heap\t" + n / 10 + " digests/s, " + collections
				+ " collections, " + filled + " MiB until its own OutOfMemoryError; saw 1 processor, 512 MiB");
		}
	}
}
