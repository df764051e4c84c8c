#include "display/vnc/web_files.hpp"

#include <fcntl.h>
#include <microhttpd.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include <array>
#include <cstring>
#include <string_view>

#include "base/log.hpp"

namespace lodge::display::vnc {

namespace {

constexpr const char* kFolder = "/usr/share/novnc";

const char* type_of(std::string_view path) {
  struct Type {
    std::string_view suffix;
    const char* type;
  };
  constexpr std::array<Type, 9> kTypes{{{".html", "text/html; charset=utf-8"},
                                        {".js", "text/javascript; charset=utf-8"},
                                        {".css", "text/css; charset=utf-8"},
                                        {".json", "application/json"},
                                        {".svg", "image/svg+xml"},
                                        {".png", "image/png"},
                                        {".ico", "image/x-icon"},
                                        {".woff", "font/woff"},
                                        {".oga", "audio/ogg"}}};
  for (const Type& type : kTypes)
    if (path.ends_with(type.suffix)) return type.type;
  return "application/octet-stream";
}

MHD_Result answer(MHD_Connection* connection, unsigned status, const char* header, const char* value, std::string_view text) {
  // The library copies the text and does not change it.
  MHD_Response* response = MHD_create_response_from_buffer(text.size(), const_cast<char*>(text.data()), MHD_RESPMEM_MUST_COPY);
  if (!response) return MHD_NO;
  if (header) MHD_add_response_header(response, header, value);
  const MHD_Result queued = MHD_queue_response(connection, status, response);
  MHD_destroy_response(response);
  return queued;
}

MHD_Result serve(void*, MHD_Connection* connection, const char* url, const char* method, const char*, const char*, size_t*, void**) {
  if (std::strcmp(method, "GET") != 0 && std::strcmp(method, "HEAD") != 0)
    return answer(connection, MHD_HTTP_METHOD_NOT_ALLOWED, "Allow", "GET, HEAD", "only GET\n");
  const std::string_view path = url;
  if (path == "/") return answer(connection, MHD_HTTP_FOUND, "Location", WebFiles::kPage, "");
  const std::string file = std::string(kFolder) + url;
  struct stat info{};
  Fd fd;
  // No way out of the folder, by names of its own or by links.
  if (path.find("..") == std::string_view::npos) fd = Fd(open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (!fd || fstat(fd.get(), &info) != 0 || !S_ISREG(info.st_mode))
    return answer(connection, MHD_HTTP_NOT_FOUND, nullptr, nullptr, "not found\n");
  MHD_Response* response = MHD_create_response_from_fd(static_cast<uint64_t>(info.st_size), fd.release());
  if (!response) return MHD_NO;
  MHD_add_response_header(response, MHD_HTTP_HEADER_CONTENT_TYPE, type_of(path));
  const MHD_Result queued = MHD_queue_response(connection, MHD_HTTP_OK, response);
  MHD_destroy_response(response);
  return queued;
}

}  // namespace

Result<> check_web_files() {
  if (access((std::string(kFolder) + "/vnc.html").c_str(), R_OK) == 0) return {};
  return fail(ErrorKind::NotFound, "--display web: {} is not there: install the package novnc, or use --display vnc", kFolder);
}

Result<std::unique_ptr<WebFiles>> WebFiles::start() {
  constexpr unsigned kMostConnections = 64, kIdleSeconds = 30;
  MHD_Daemon* daemon =
      MHD_start_daemon(MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_NO_LISTEN_SOCKET | MHD_USE_ITC, 0, nullptr, nullptr, &serve, nullptr,
                       MHD_OPTION_CONNECTION_LIMIT, kMostConnections, MHD_OPTION_CONNECTION_TIMEOUT, kIdleSeconds, MHD_OPTION_END);
  if (!daemon) return fail(ErrorKind::Internal, "the web server for the screen does not start");
  return std::unique_ptr<WebFiles>(new WebFiles(daemon));
}

WebFiles::~WebFiles() { MHD_stop_daemon(daemon_); }

void WebFiles::add(Fd connection) {
  sockaddr_storage address{};
  socklen_t length = sizeof address;
  if (getpeername(connection.get(), reinterpret_cast<sockaddr*>(&address), &length) != 0) return;
  // The library closes the descriptor, also when it refuses it.
  if (MHD_add_connection(daemon_, connection.release(), reinterpret_cast<const sockaddr*>(&address), length) != MHD_YES)
    log::debug("a browser's connection is one too many");
}

}  // namespace lodge::display::vnc
