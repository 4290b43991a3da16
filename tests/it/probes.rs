//! Probes of endpoints that run elsewhere: only those that answer are served.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
};

use crate::support::{
    get,
    namespace::in_namespace,
    program::{Program, way},
};

/// Answers every request with `body`, and those for `/ready` with this status.
fn backend(body: &'static str, ready: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = listener.local_addr().unwrap();
    let answer = move |mut stream: TcpStream| {
        let mut request = [0; 512];
        let read = stream.read(&mut request).unwrap_or_default();
        let is_probe = request[..read].starts_with(b"GET /ready ");
        let status = if is_probe { ready } else { "200 OK" };
        let _ = write!(
            stream,
            "HTTP/1.1 {status}\r\nConnection: close\r\n\r\n{body}\n"
        );
    };
    std::thread::spawn(move || {
        listener.incoming().map_while(Result::ok).for_each(answer);
    });
    addr
}

fn slice(name: &str, backend: SocketAddr) -> String {
    format!(
        "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata:\n  name: {name}\n  labels:\n    \
         kubernetes.io/service-name: web\naddressType: IPv4\nports:\n  - port: {}\nendpoints:\n  - addresses: [\"{}\"]\n",
        backend.port(),
        backend.ip()
    )
}

#[test]
fn annotated_service_serves_only_endpoints_whose_probe_passes() {
    in_namespace!(Root);
    let (well, ill) = (backend("well", "200 OK"), backend("ill", "503 No"));
    let service = |annotation: &str| {
        format!(
            "apiVersion: v1\nkind: Service\nmetadata:\n  name: web\n  annotations: {{{annotation}}}\nspec:\n  ports:\n    - port: 80\n"
        )
    };
    let probed = service("portico.dev/readiness-probe: http:/ready");
    let slices = slice("well", well) + &slice("ill", ill);
    let program = Program::up(&[], &[("service.yaml", &probed), ("slices.yaml", &slices)]);
    let web = way(&program.wait_for_endpoints("web", 1), "ClusterIP");
    for _ in 0..4 {
        assert_eq!(get(web).unwrap(), "well");
    }
    program.write("service.yaml", &service(""));
    program.wait_for_endpoints("web", 2);
}
