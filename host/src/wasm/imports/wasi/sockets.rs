//! `wasi:sockets`, which creates no sockets and finds no addresses.

use wasmtime::component::{HasSelf, Linker, Resource};
use wasmtime_wasi::p2::bindings::sockets::ip_name_lookup::{self, IpAddress, ResolveAddressStream};
use wasmtime_wasi::p2::bindings::sockets::network::{ErrorCode, IpAddressFamily, Network};
use wasmtime_wasi::p2::bindings::sockets::{instance_network, network, tcp_create_socket};
use wasmtime_wasi::p2::bindings::sync::sockets::{tcp, udp, udp_create_socket};
use wasmtime_wasi::p2::{DynPollable, SocketError, SocketResult, TcpSocket, UdpSocket};
use wasmtime_wasi::sockets::{WasiSockets, WasiSocketsView};

use crate::wasm::imports::wasi::Forbidden;
use crate::wasm::state::State;

/// Makes `wasi:sockets` available to guests.
pub(super) fn add_to_linker(linker: &mut Linker<State>) -> wasmtime::Result<()> {
    type Own = HasSelf<State>;
    let l = linker;
    instance_network::add_to_linker::<_, WasiSockets>(l, State::sockets)?;
    ip_name_lookup::add_to_linker::<_, Own>(l, |state| state)?;
    network::add_to_linker::<_, WasiSockets>(l, &network::LinkOptions::default(), State::sockets)?;
    tcp::add_to_linker::<_, WasiSockets>(l, State::sockets)?;
    tcp_create_socket::add_to_linker::<_, Own>(l, |state| state)?;
    udp::add_to_linker::<_, WasiSockets>(l, State::sockets)?;
    udp_create_socket::add_to_linker::<_, Own>(l, |state| state)
}

impl network::Host for State {
    fn convert_error_code(&mut self, error: SocketError) -> wasmtime::Result<ErrorCode> {
        network::Host::convert_error_code(&mut self.sockets(), error)
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        network::Host::network_error_code(&mut self.sockets(), error)
    }
}

impl network::HostNetwork for State {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        network::HostNetwork::drop(&mut self.sockets(), network)
    }
}

impl tcp_create_socket::Host for State {
    fn create_tcp_socket(&mut self, _: IpAddressFamily) -> SocketResult<Resource<TcpSocket>> {
        Err(ErrorCode::AccessDenied.into())
    }
}

impl udp_create_socket::Host for State {
    fn create_udp_socket(&mut self, _: IpAddressFamily) -> SocketResult<Resource<UdpSocket>> {
        Err(ErrorCode::AccessDenied.into())
    }
}

impl ip_name_lookup::Host for State {
    fn resolve_addresses(
        &mut self,
        _: Resource<Network>,
        _: String,
    ) -> SocketResult<Resource<ResolveAddressStream>> {
        Err(ErrorCode::AccessDenied.into())
    }
}

/// The error of a guest that uses a stream of addresses, which it cannot have.
fn no_stream() -> wasmtime::Error {
    Forbidden("used a stream of addresses that does not exist").into()
}

impl ip_name_lookup::HostResolveAddressStream for State {
    fn resolve_next_address(&mut self, _: Resource<ResolveAddressStream>) -> SocketResult<Option<IpAddress>> {
        Err(SocketError::trap(no_stream()))
    }

    fn subscribe(&mut self, _: Resource<ResolveAddressStream>) -> wasmtime::Result<Resource<DynPollable>> {
        Err(no_stream())
    }

    fn drop(&mut self, _: Resource<ResolveAddressStream>) -> wasmtime::Result<()> {
        Err(no_stream())
    }
}
