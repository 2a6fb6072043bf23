// Calibrated energies from a model's ONNX file alone, with ONNX Runtime's C API (1.21 or newer)
// through its C++ header.
//
//   g++ -std=c++17 -O2 calibrate.cpp -o calibrate $(pkg-config --cflags --libs libonnxruntime)
//   ./calibrate models/bnn/model.onnx < clusters.txt
//
// One cluster a line: the features in physical units (GeV, mm, ns), in the order of the model's
// card (`topocal describe models/bnn`), the uncalibrated energy first. For each line it prints
// the calibrated energy, the response and the response's sigma_tot, sigma_syst and sigma_stat; nan
// where the model gives no answer. What else a framework must do is in the README.

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

namespace {

constexpr std::size_t kBatch = 512;  // rows that are calibrated together; it bounds memory
constexpr std::array<const char*, 1> kInputs{"features"};
constexpr std::array<const char*, 3> kOutputs{"central", "sigma_syst", "sigma_stat"};

// Appends a line's numbers; false if they are not `width` numbers.
bool append(const std::string& line, std::size_t width, std::vector<float>& features) {
  const char* at = line.c_str();
  for (std::size_t i = 0; i < width; ++i) {
    char* end = nullptr;
    features.push_back(std::strtof(at, &end));
    if (end == at) return false;
    at = end;
  }
  return line.find_first_not_of(" \t\r", at - line.c_str()) == std::string::npos;
}

void calibrate(Ort::Session& session, std::size_t width, std::vector<float>& features) {
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const std::size_t rows = features.size() / width;
  const std::array<std::int64_t, 2> shape{static_cast<std::int64_t>(rows),
                                          static_cast<std::int64_t>(width)};
  const auto input = Ort::Value::CreateTensor<float>(memory, features.data(), features.size(),
                                                     shape.data(), shape.size());
  const auto outputs = session.Run(Ort::RunOptions{nullptr}, kInputs.data(), &input, 1,
                                   kOutputs.data(), kOutputs.size());
  const float* response = outputs[0].GetTensorData<float>();
  const float* syst = outputs[1].GetTensorData<float>();
  const float* stat = outputs[2].GetTensorData<float>();
  for (std::size_t i = 0; i < rows; ++i) {
    const float energy = features[i * width] / response[i];
    std::printf("%.9g %.9g %.9g %.9g %.9g\n", energy, response[i], std::hypot(syst[i], stat[i]),
                syst[i], stat[i]);
  }
  features.clear();
}

}  // namespace

int main(int argc, char** argv) try {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s MODEL.onnx < FEATURES\n", argv[0]);
    return 2;
  }
  Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "calibrate");
  Ort::SessionOptions options;
  options.SetIntraOpNumThreads(1);  // a reconstruction job has its own threads
  Ort::Session session(environment, argv[1], options);
  const std::size_t width = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape()[1];

  std::vector<float> features;
  std::string line;
  for (std::size_t number = 1; std::getline(std::cin, line); ++number) {
    if (!append(line, width, features)) {
      std::fprintf(stderr, "line %zu: %zu numbers are expected\n", number, width);
      return 2;
    }
    if (features.size() == kBatch * width) calibrate(session, width, features);
  }
  if (!features.empty()) calibrate(session, width, features);
  return 0;
} catch (const Ort::Exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
