//! The end of `--help`: what the flags have in common.

pub(crate) const NOTES: &str = "\
Forwarding:
  The server receives each request as the client sent it, including Host, without the headers of the
  connection (RFC 9110 §7.6.1), and with Via and X-Forwarded-For, -Host and -Proto. If the target of
  a request names a host, that replaces Host (RFC 9112 §3.2.2). The gateway speaks HTTP/1.1 without
  TLS on both sides. It rejects CONNECT and drops Upgrade, so that a WebSocket handshake arrives as
  a plain GET. A request body over --max-body passes through (with --always or an Idempotency-Key:
  413). If the server is unreachable, the response is 502.

File descriptors:
  At the start the gateway raises its limit of open files (ulimit -n) as far as the system allows,
  and keeps up to 64 in reserve. Half of the rest is for calls that are or may become jobs; further
  ones are queued until a call ends. A quarter is for connections of clients; the last quarter is
  for the calls that these make without becoming jobs. If all connections are taken, the gateway
  closes idle ones, and a new client waits until one ends. A new connection counts as idle after a
  second without a request. A health check waits for a connection too. Stalled requests hold theirs
  for at most --idle-secs. With --callback-hosts, a quarter of the calls' share is for callbacks, at
  most 320.

Shutdown:
  After SIGTERM or Ctrl-C the gateway accepts no new requests and waits for its jobs. Their monitor
  still answers. Once the last job has ended, the gateway waits until the callbacks that are due
  have been tried, and until clients that have seen a Retry-After have fetched their results, or a
  second past that time. With --store or --nats it need not wait for these clients. Then it exits,
  and loses what is only in memory. A second signal ends the process at once.

Exit status:
  0 after a shutdown in which all jobs ended. 1 after an error or a second signal. 2 if a flag is
  invalid. 3 if jobs were unfinished when --drain-secs was over.

Logs:
  RUST_LOG sets the log levels. RUST_LOG=info,tower_accepted=debug logs each job.";
