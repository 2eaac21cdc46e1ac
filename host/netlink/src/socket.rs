//! A plain blocking netlink socket for requests.

use std::io;
use std::time::Duration;

use netlink_sys::{Socket, SocketAddr};
use rustix::io::Errno;
use rustix::net::sockopt;

use crate::Error;

/// Bytes of requests in one send. Measured: more brings nothing.
pub(crate) const SEND_LIMIT: usize = 64 * 1024;
/// Bytes of one read. Measured: dumps with smaller reads are slower, with 4 KiB even quadratic; larger brings nothing.
pub(crate) const READ_SIZE: usize = 32 * 1024;
/// Room for replies: some thousand errors, where the default keeps 256.
const RECEIVE_BUFFER: usize = 4 * 1024 * 1024;
const SEND_BUFFER: usize = 1024 * 1024;
/// The kernel answers inside the send, so this only passes when a reply was lost.
const REPLY_TIMEOUT: Duration = Duration::from_secs(2);

/// A socket and the number of the next request.
pub(crate) struct Channel {
    socket: Socket,
    port: u32,
    sequence: u32,
    buffer: Vec<u8>,
}

impl Channel {
    /// A socket for one of netlink's protocols (`NETLINK_*`).
    pub(crate) fn open(protocol: isize) -> Result<Self, Error> {
        let failed = |what| move |source| Error::Socket { what, source };
        let mut socket = Socket::new(protocol).map_err(failed("open a socket"))?;
        let port = socket.bind_auto().map_err(failed("bind a socket"))?.port_number();
        socket.connect(&SocketAddr::new(0, 0)).map_err(failed("connect a socket"))?;
        // All three are there since Linux 4.20; without them errors say less and dumps are filtered here.
        let _ = socket.set_cap_ack(true);
        let _ = socket.set_ext_ack(true);
        let _ = socket.set_netlink_get_strict_chk(true);
        receive_buffer(&socket, RECEIVE_BUFFER);
        if sockopt::set_socket_send_buffer_size_force(&socket, SEND_BUFFER).is_err() {
            // The default already holds SEND_LIMIT.
            let _ = sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER);
        }
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(REPLY_TIMEOUT))
            .map_err(|errno| failed("limit the waiting time")(errno.into()))?;
        Ok(Self { socket, port, sequence: 1, buffer: vec![0; READ_SIZE] })
    }

    /// The socket's own number among those of its network namespace.
    pub(crate) fn port(&self) -> u32 {
        self.port
    }

    /// Takes `count` sequence numbers that follow each other and returns the first.
    pub(crate) fn take_sequence(&mut self, count: usize) -> u32 {
        let first = self.sequence;
        self.sequence = self.sequence.wrapping_add(u32::try_from(count).unwrap_or(u32::MAX));
        first
    }

    pub(crate) fn send(&self, bytes: &[u8]) -> io::Result<()> {
        self.socket.send(bytes, 0).map(|_| ())
    }

    /// The next datagram; waits for it no longer than [`REPLY_TIMEOUT`].
    pub(crate) fn receive(&mut self) -> Result<&[u8], Errno> {
        self.read(0)
    }

    /// The next datagram, if one is there.
    pub(crate) fn receive_now(&mut self) -> Result<&[u8], Errno> {
        self.read(rustix::net::RecvFlags::DONTWAIT.bits().cast_signed())
    }

    /// As little room for answers as the kernel allows.
    #[cfg(test)]
    pub(crate) fn shrink_receive_buffer(&self) {
        sockopt::set_socket_recv_buffer_size(&self.socket, 1).unwrap();
    }

    fn read(&mut self, flags: i32) -> Result<&[u8], Errno> {
        loop {
            let mut buffer = self.buffer.as_mut_slice();
            match self.socket.recv(&mut buffer, flags) {
                Ok(length) => return Ok(self.buffer.get(..length).unwrap_or(&self.buffer)),
                Err(error) => match Errno::from_io_error(&error) {
                    Some(Errno::INTR) => {}
                    Some(errno) => return Err(errno),
                    None => return Err(Errno::IO),
                },
            }
        }
    }
}

/// Makes room for what arrives: more than `net.core.rmem_max` with CAP_NET_ADMIN, else as much as that allows.
pub(crate) fn receive_buffer(socket: &Socket, bytes: usize) {
    if sockopt::set_socket_recv_buffer_size_force(socket, bytes).is_err()
        && let Err(error) = sockopt::set_socket_recv_buffer_size(socket, bytes)
    {
        tracing::debug!(%error, bytes, "the receive buffer keeps its default size");
    }
}
