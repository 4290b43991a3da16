//! What a proxy must not get wrong, provoked on purpose: ends of streams, edits of listeners, resources that run out.
//! `docs/reliability.md` lists what each test and each load scenario stands for.

mod resources;
mod streams;
mod table;

use std::{
    fmt::Write as _,
    net::{SocketAddr, TcpListener, TcpStream},
};

use crate::support::{
    PATIENCE,
    program::{Program, way},
};

/// Service `name` on `port`, and a slice of these endpoints for it.
fn manifest(name: &str, port: u16, endpoints: &[SocketAddr]) -> String {
    let mut text = format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    );
    for (index, endpoint) in endpoints.iter().enumerate() {
        let _ = write!(
            text,
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}-{index}\n  labels: \
             {{kubernetes.io/service-name: {name}}}\naddressType: IPv4\nports: [{{port: {}}}]\n\
             endpoints: [{{addresses: [{}]}}]\n",
            endpoint.port(),
            endpoint.ip()
        );
    }
    text
}

/// An endpoint that gives back what it gets, until the end of the process.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut &stream));
        }
    });
    addr
}

/// portico before one endpoint that the test plays itself.
struct Between {
    program: Program,
    listener: TcpListener,
    vip: SocketAddr,
}

impl Between {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = listener.local_addr().unwrap();
        let text = manifest("web", 80, &[endpoint]);
        let program = Program::up(&["--workers", "2"], &[("web.yaml", &text)]);
        let vip = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
        Self {
            program,
            listener,
            vip,
        }
    }

    /// A connection: the client's end and the endpoint's.
    fn connect(&self) -> (TcpStream, TcpStream) {
        let client = TcpStream::connect_timeout(&self.vip, PATIENCE).unwrap();
        let (endpoint, _) = self.listener.accept().unwrap();
        for end in [&client, &endpoint] {
            end.set_nodelay(true).unwrap();
            end.set_read_timeout(Some(PATIENCE)).unwrap();
            end.set_write_timeout(Some(PATIENCE)).unwrap();
        }
        (client, endpoint)
    }
}
